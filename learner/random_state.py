"""The state of every random generator of a process, as JSON: DeepSpeed saves none, and a resumed run would differ."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class RandomState:
    python: tuple[int, tuple[int, ...], float | None]
    numpy: tuple[str, list[int], int, int, float]
    torch: list[int]
    cuda: list[int]  # empty where there is no GPU

    @classmethod
    def capture(cls) -> RandomState:
        kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        cuda = torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else []
        numpy = (str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss))
        return cls(random.getstate(), numpy, torch.get_rng_state().tolist(), cuda)

    def restore(self) -> None:
        """Set the generators. The fields may have been through JSON, tuples as lists."""
        version, words, next_gauss = self.python
        random.setstate((version, tuple(words), next_gauss))
        kind, keys, position, has_gauss, gauss = self.numpy
        np.random.set_state((kind, np.asarray(keys, np.uint32), position, has_gauss, gauss))
        torch.set_rng_state(torch.tensor(self.torch, dtype=torch.uint8))
        if self.cuda:
            torch.cuda.set_rng_state(torch.tensor(self.cuda, dtype=torch.uint8))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
