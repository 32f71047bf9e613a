"""Brings publications to the engines while the learner goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from learner.weights import Weights


class Serving:
    """`load` is given the newest publication, one at a time; those that a newer overtook meanwhile are left out."""

    def __init__(self, load: Callable[[Weights], Awaitable[None]]) -> None:
        self._load = load
        self._newest: Weights | None = None
        self._loading: Weights | None = None
        self._served: Weights | None = None
        self._change = asyncio.Condition()

    async def run(self) -> None:
        """Serve until cancelled. Raises what `load` raises."""
        while True:
            async with self._change:
                await self._change.wait_for(lambda: self._served is not self._newest)
                loading = self._loading = self._newest
            assert loading is not None
            await self._load(loading)
            async with self._change:
                self._served, self._loading = loading, None
                self._change.notify_all()

    async def room(self) -> None:
        """Wait until a publication may be written: until none is being loaded that a newer one has overtaken already.

        The version before the last is written over by the next one; a slow engine must have read it by then.
        """
        async with self._change:
            await self._change.wait_for(lambda: self._loading in (None, self._newest))

    async def offer(self, weights: Weights) -> None:
        """These are the newest."""
        async with self._change:
            self._newest = weights
            self._change.notify_all()

    async def settled(self) -> None:
        """Wait until every engine serves the newest."""
        async with self._change:
            await self._change.wait_for(lambda: self._served is self._newest)
