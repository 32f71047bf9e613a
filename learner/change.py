"""How far the parameters of one checkpoint are from another's: by layer and module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

LAYER = re.compile(r"(?:^|\.)(\d+)\.(.+?)(?:\.(?:weight|bias))?$")


@dataclass(frozen=True, slots=True)
class Change:
    """Of one parameter; `layer` is -1 outside the layers. Norms (Frobenius): of the difference, and its own before."""

    layer: int
    module: str
    moved: float
    size: float
    num_elements: int

    @property
    def relative(self) -> float:
        return self.moved / self.size if self.size else 0.0


def changes(before: Path, after: Path) -> list[Change]:
    """Every parameter of two folders of safetensors. Raises ValueError where they are not the same model's."""
    first, second = _places(before), _places(after)
    if odd := sorted(first.keys() ^ second.keys()):
        raise ValueError(f"{odd[0]!r} is in only one of {before} and {after}: these are not checkpoints of one model")
    found: list[Change] = []
    for name in first:
        old, new = _read(first[name], name), _read(second[name], name)
        if old.shape != new.shape:
            raise ValueError(f"{name!r} is {tuple(old.shape)} in {before} and {tuple(new.shape)} in {after}")
        inside = LAYER.search(name)
        layer, module = (int(inside[1]), inside[2]) if inside else (-1, name.removesuffix(".weight"))
        found.append(Change(layer, module, float((new - old).norm()), float(old.norm()), old.numel()))
    return found


def _places(folder: Path) -> Mapping[str, Path]:
    """The file that each parameter is in."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no *.safetensors: name a model's folder, or that of a run that has ended")
    found: dict[str, Path] = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        except SafetensorError as error:
            raise ValueError(f"{path}: {error}") from error
    return found


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name).float()
