"""How many groups are open at once: as many as the engines' KV caches bear."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from actors.engine import EngineStats

PERIOD_S = 2.0
CUT, ROOMY = 0.75, 0.85  # what is left of the limit after a cut; the cache's usage below which the limit rises


class Pace:
    """At most `most`. A preemption means that prompts are computed twice, so then fewer; one more while there is room.

    Additive increase, multiplicative decrease; a cut waits until the one before has taken effect.
    """

    def __init__(self, most: int) -> None:
        self.limit = self._most = most
        self.num_open = 0
        self._stats = EngineStats()
        self._change = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._change:
            await self._change.wait_for(lambda: self.num_open < self.limit)
            self.num_open += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._change:
            self.num_open -= 1
            self._change.notify()

    async def observe(self, stats: EngineStats) -> None:
        """What the engines say of themselves; a replaced one counts from 0 again."""
        new, self._stats = stats.preemptions - self._stats.preemptions, stats
        async with self._change:
            if new > 0 and self.num_open <= self.limit:
                self.limit = max(1, int(self.num_open * CUT))
            elif new <= 0 and stats.kv_usage < ROOMY and self.limit < self._most:
                self.limit += 1
                self._change.notify()

    def metrics(self) -> Mapping[str, float]:
        """The limit, and what the engines said last."""
        said = {"kv_usage": self._stats.kv_usage, "preemptions": float(self._stats.preemptions)}
        return {f"actors/{name}": value for name, value in {"open_limit": float(self.limit), **said}.items()}

    async def run(self, stats: Callable[[], Awaitable[EngineStats]]) -> None:
        """Observe until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.observe(await stats())
