"""The Learner protocol: what trains and publishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from learner.batch import Batch
from learner.weights import Weights


class Learner(Protocol):
    async def update(self, batch: Batch) -> Mapping[str, float]:
        """One optimiser step; one without microbatches changes nothing, and counts. Metric keys start with `learner/`."""
        ...

    async def publish(self) -> Weights:
        """Write the present weights as a new version and give its receipt."""
        ...

    async def save(self, path: str) -> None:
        """Everything a later `load` needs to go on bit for bit: weights, optimiser, RNG, step."""
        ...

    async def load(self, path: str) -> None: ...
