"""A learner of many ranks behind the face of one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from learner.batch import Batch, Microbatch
from learner.weights import Weights


class Rank(Protocol):
    """One rank's part of a learner; all ranks are called alike, for their collectives must match."""

    async def update(self, shard: tuple[Microbatch, ...]) -> Mapping[str, float]: ...
    async def publish(self) -> Weights: ...
    async def save(self, path: str) -> None: ...
    async def load(self, path: str) -> None: ...


class Gang:
    """Implements Learner: each rank is handed its shard; what rank 0 reports is the answer."""

    def __init__(self, ranks: Sequence[Rank]) -> None:
        self._ranks = tuple(ranks)

    async def update(self, batch: Batch) -> Mapping[str, float]:
        pairs = zip(self._ranks, batch.shards, strict=True)
        return (await asyncio.gather(*(rank.update(shard) for rank, shard in pairs)))[0]

    async def publish(self) -> Weights:
        return (await asyncio.gather(*(rank.publish() for rank in self._ranks)))[0]

    async def save(self, path: str) -> None:
        await asyncio.gather(*(rank.save(path) for rank in self._ranks))

    async def load(self, path: str) -> None:
        await asyncio.gather(*(rank.load(path) for rank in self._ranks))
