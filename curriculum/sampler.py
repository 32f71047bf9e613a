"""Which task next: pure functions of seeds and tallies, so that a resumed run draws as the unkilled one would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from envs.types import Task

SOMETIMES, UNTRIED, SETTLED = 1.0, 0.25, 0.05  # the frontier's weight of one task


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a task was tried and solved of late, in trajectories."""

    tried: int = 0
    solved: int = 0

    def plus(self, tried: int, solved: int) -> Tally:
        """With one more group seen. The past counts half, since the policy that made it is gone."""
        return Tally(self.tried // 2 + tried, self.solved // 2 + solved)

    @property
    def weight(self) -> float:
        if not self.tried:
            return UNTRIED
        return SOMETIMES if 0 < self.solved < self.tried else SETTLED


@dataclass(frozen=True, slots=True)
class Draw:
    task: Task
    reason: str


def next_level(shares: Mapping[str, float], drawn: Mapping[str, int]) -> str:
    """The level that is furthest behind its share, so that any run of assignments keeps the shares."""
    num = sum(drawn.values()) + 1
    return max(shares, key=lambda level: shares[level] * num - drawn.get(level, 0))


def uniform(tasks: Sequence[Task], drawn: int, *, key: str) -> Draw:
    """The task after `drawn` earlier ones: each once per pass, every pass in a shuffle of its own made from `key`."""
    lap, place = divmod(drawn, len(tasks))
    order = Random(f"{key}/{lap}").sample(range(len(tasks)), len(tasks))
    return Draw(tasks[order[place]], f"task {place + 1} of {len(tasks)} in pass {lap + 1}")


def frontier(tasks: Sequence[Task], tallies: Mapping[str, Tally], *, key: str) -> Draw:
    """A task drawn from `key`: likeliest one solved sometimes, then one untried, seldom one solved always or never."""
    weights = [tallies.get(task.id, Tally()).weight for task in tasks]
    task = Random(key).choices(tasks, weights)[0]
    tally = tallies.get(task.id, Tally())
    if not tally.tried:
        return Draw(task, "not tried yet")
    return Draw(task, f"solved {tally.solved} of {tally.tried} of late")
