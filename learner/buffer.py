"""Groups on their way to the learner: admission paces acting, so that little is ever dropped for its age."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from envs.types import Group


def has_signal(group: Group) -> bool:
    return group.has_signal


class Verdict(StrEnum):
    """What became of a group that was handed in."""

    ACCEPTED = "accepted"
    FILTERED = "filtered"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class BufferState:
    """What a checkpoint keeps of the buffer: the version and the accepted groups not yet taken."""

    version: int
    groups: tuple[Group, ...]


class Buffer:
    """Bounded lag by admission (DESIGN.md section 5).

    A group is admitted while admitted - dropped < (version + 1 + max_lag) x groups_per_batch, of the version that every
    engine serves; one without signal or older than `max_lag` is dropped and its place given to another. After `max_refills`
    drops without signal in one version the places stay empty and the batch is smaller, so that a solved stage still ends.
    """

    def __init__(
        self, *, groups_per_batch: int, max_lag: int, max_refills: int, teaches: Callable[[Group], bool] = has_signal
    ) -> None:
        """`teaches` says of a group whether a batch learns from it."""
        self._teaches = teaches
        self._size, self._max_lag, self._max_refills = groups_per_batch, max_lag, max_refills
        # Apart, and woken by number: with a thousand groups waiting for a place, waking all for each would cost the most.
        lock = asyncio.Lock()
        self._places, self._ready = asyncio.Condition(lock), asyncio.Condition(lock)
        self._groups: list[Group] = []
        self._version = self._served = self._base = self._admitted = self._refills = self._empty = 0

    @property
    def version(self) -> int:
        return self._version

    @property
    def num_ready(self) -> int:
        return len(self._groups) + self._empty

    async def admit(self) -> None:
        """Wait for a place."""
        async with self._places:
            await self._places.wait_for(lambda: self._admitted < self._quota())
            self._admitted += 1

    async def put(self, group: Group) -> Verdict:
        """Hand a finished group in."""
        async with self._ready:
            verdict = self._judge(group)
            if verdict is Verdict.ACCEPTED:
                self._groups.append(group)
            elif verdict is Verdict.FILTERED and self._refills >= self._max_refills:
                self._empty += 1
            else:
                self._refills += verdict is Verdict.FILTERED
                self._admitted -= 1
                self._wake()
            self._ready.notify_all()
            return verdict

    async def give_back(self) -> None:
        """An admitted group will never be handed in (its actor failed): its place is free again."""
        async with self._places:
            self._admitted -= 1
            self._wake()

    async def take(self) -> tuple[Group, ...]:
        """The next batch, in the order of assignment; fewer groups than a batch where places stayed empty."""
        async with self._ready:
            await self._ready.wait_for(lambda: self.num_ready >= self._size)
            empty = min(self._empty, self._size)
            self._empty -= empty
            self._groups.sort(key=lambda group: group.assignment.id)
            count = self._size - empty
            taken, self._groups = self._groups[:count], self._groups[count:]
            return tuple(taken)

    async def advance(self, version: int) -> tuple[Group, ...]:
        """The learner has published `version` and is done with the step: give back what has become too old."""
        async with self._places:
            self._version, self._refills = version, 0
            stale = tuple(group for group in self._groups if self._is_stale(group))
            self._groups = [group for group in self._groups if not self._is_stale(group)]
            self._admitted -= len(stale)
            self._wake()
            return stale

    async def serve(self, version: int) -> None:
        """Every engine serves `version`: once the learner's step is done too, more is admitted."""
        async with self._places:
            self._served = version
            self._wake()

    def state(self) -> BufferState:
        return BufferState(self._version, tuple(self._groups))

    def restore(self, state: BufferState) -> None:
        """Go on from a checkpoint: the kept groups count as admitted, nothing else is under way."""
        self._version = self._served = self._base = state.version
        self._groups = list(state.groups)
        self._admitted = len(self._groups)

    def _wake(self) -> None:
        """As many waiters as there are places."""
        self._places.notify(max(0, self._quota() - self._admitted))

    def _quota(self) -> int:
        return (min(self._version, self._served) - self._base + 1 + self._max_lag) * self._size

    def _judge(self, group: Group) -> Verdict:
        if self._is_stale(group):
            return Verdict.STALE
        return Verdict.ACCEPTED if self._teaches(group) else Verdict.FILTERED

    def _is_stale(self, group: Group) -> bool:
        return 0 <= group.version < self._version - self._max_lag


def lag(groups: Sequence[Group], version: int) -> float:
    """Mean of learner version minus trajectory version over the groups of which anything was sampled."""
    lags = [version - group.version for group in groups if group.version >= 0]
    return sum(lags) / len(lags) if lags else 0.0
