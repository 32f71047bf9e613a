"""As many episodes as are asked for, on a bounded number of machines.

No episode holds a machine for itself: one that needs a machine while all serve others takes one over, and the episode that
lost it is played again, action by action, when it goes on. The simulator is deterministic, so nobody can tell. To wait until
another episode ends would deadlock: episodes wait in the threads of one small pool, and whoever holds a machine needs such a
thread to come to its end. Here a thread waits for one action of another at most, with what is played again before it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from threading import Condition
from typing import TypeVar

from envs.scienceworld.machine import HEAP_MB, Machine, MachineDied, MachineError, Reply

T = TypeVar("T")
VARIABLE = "TILTYARD_MACHINES"
MACHINE_MB, SHARE, MOST = 350, 0.25, 16  # a machine's memory; the share of all memory that they may take by default
GOLD_HEAP_MB = 1024  # the search for a gold path tries out whole tours of the building


@dataclass(slots=True, eq=False)
class Episode:
    """A task and what has been done in it so far: all that it takes to be where it is, on any machine."""

    name: str
    variation: int
    actions: list[str] = field(default_factory=list)
    is_left: bool = False


@dataclass(slots=True, eq=False)
class Seat:
    """A place for a machine, which is started when it is first needed, and the episode that it is at."""

    machine: Machine | None = None
    episode: Episode | None = None
    is_busy: bool = True

    @property
    def loss(self) -> int:
        """Actions to be played again should somebody else take the seat; -1 where nobody would miss it."""
        return -1 if self.episode is None or self.episode.is_left else len(self.episode.actions)


class Left(MachineError):
    """Nobody waits for the action any more."""


class Pool:
    """Safe to call from many threads, though an episode acts in one at a time. An episode is left by setting `is_left`."""

    def __init__(self, most: int, *, heap_mb: int = HEAP_MB) -> None:
        self._most, self._heap_mb = most, heap_mb
        self._seats: list[Seat] = []
        self._changed = Condition()

    def act(self, episode: Episode, action: str) -> Reply:
        """What the action comes to in the episode. Raises MachineError where the machine fails."""
        reply = self._on_machine(episode, lambda machine: machine.step(action))
        episode.actions.append(action)
        return reply

    def gold(self, name: str, variation: int) -> Sequence[str]:
        """The package's gold path, up to the action that completes the task."""
        episode = Episode(name, variation)
        try:
            return self._on_machine(episode, partial(_gold, name=name, variation=variation))
        finally:
            episode.is_left = True

    @property
    def pids(self) -> list[int]:
        with self._changed:
            return [seat.machine.pid for seat in self._seats if seat.machine is not None]

    def close(self) -> None:
        """End all machines; an episode that still acts meets a fault."""
        with self._changed:
            seats, self._seats = self._seats, []
        for seat in seats:
            if seat.machine is not None:
                seat.machine.close()

    def _on_machine(self, episode: Episode, do: Callable[[Machine], T]) -> T:
        """Once more, on another machine, where one has died meanwhile."""
        with suppress(MachineDied), self._seat(episode) as machine:
            return do(machine)
        with self._seat(episode) as machine:
            return do(machine)

    @contextmanager
    def _seat(self, episode: Episode) -> Iterator[Machine]:
        """A machine at the place where the episode is, and at nobody else's disposal until the block ends."""
        with self._changed:
            while (seat := self._choose(episode)) is None:
                self._changed.wait()
            seat.is_busy = True
        try:
            if seat.machine is not None and not seat.machine.is_alive:
                seat.machine.close()
                seat.machine = seat.episode = None
            seat.machine = seat.machine or Machine(heap_mb=self._heap_mb)
            yield _brought(seat, seat.machine, episode)
        except Left:
            raise
        except BaseException:
            self._remove(seat)
            raise
        finally:
            with self._changed:
                seat.is_busy = False
                self._changed.notify_all()

    def _choose(self, episode: Episode) -> Seat | None:
        """The episode's own seat, one that nobody misses, a new one, or the one whose episode is replayed soonest."""
        idle = [seat for seat in self._seats if not seat.is_busy]
        best = next((seat for seat in idle if seat.episode is episode), min(idle, key=lambda seat: seat.loss, default=None))
        if best is not None and (best.episode is episode or best.loss < 0):
            return best
        if len(self._seats) < self._most:
            self._seats.append(Seat())
            return self._seats[-1]
        return best

    def _remove(self, seat: Seat) -> None:
        """Give up a seat whose machine failed: the next one starts anew."""
        with self._changed:
            if seat in self._seats:
                self._seats.remove(seat)
        if seat.machine is not None:
            seat.machine.close()


def _brought(seat: Seat, machine: Machine, episode: Episode) -> Machine:
    """The seat's machine, at the place where the episode is."""
    if episode.is_left:
        raise Left("the episode was closed before this action")
    if seat.episode is not episode:
        seat.episode = None
        machine.load(episode.name, episode.variation)
        for action in episode.actions:
            if episode.is_left:
                raise Left("the episode was closed while it was played again")
            machine.step(action)
        seat.episode = episode
    return machine


def _gold(machine: Machine, *, name: str, variation: int) -> Sequence[str]:
    found: list[str] = []
    for action in machine.load(name, variation, with_gold=True):
        found.append(action)
        if machine.step(action).is_over:
            break
    return tuple(found)


@cache
def pool() -> Pool:
    """This process's own, with as many machines at most as TILTYARD_MACHINES says."""
    return _closed_at_exit(Pool(most()))


@cache
def finder() -> Pool:
    """The one machine that searches for gold paths, apart from the others, since it needs more memory."""
    return _closed_at_exit(Pool(1, heap_mb=GOLD_HEAP_MB))


def _closed_at_exit(pool: Pool) -> Pool:
    atexit.register(pool.close)
    return pool


def most() -> int:
    """How many machines this process may have, or a ValueError where the variable cannot be read."""
    told = os.environ.get(VARIABLE, "")
    if told:
        if not told.isdecimal() or int(told) < 1:
            raise ValueError(f"{VARIABLE} is {told!r}; it is a number of machines, 1 or more")
        return int(told)
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return max(2, min(MOST, int(SHARE * memory_mb / MACHINE_MB)))
