"""`make fork`: episodes restored by replay at random turns go on as the one that was played through.

usage: python -m deploy.fork ENVIRONMENT ... [--count N] [--seed N]     as a config names them
Each task's reference is made worse from the seed, so that errors and detours are restored too. Writes
runs/bench/fork-<environment>.json.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice

from deploy.figure import Figure
from envs.degrade import KINDS
from envs.environment import environment
from envs.types import Message, Observation, Stop, Task, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics

SPLITS = ("train", "validation", "test")
FORKS_PER_TASK, SHARE_GIBBERISH, TOLD_EVERY = 5, 0.3, 50
GIBBERISH = Message("assistant", "", (), "unreadable")


class Episode:
    """An environment of its own with what it has answered so far, its opening first."""

    def __init__(self, task: Task, said: Sequence[Message] = ()) -> None:
        self._env, self._task = environment(task.env).make(), task
        self._turns: list[Turn] = []
        self._opening = self._env.reset(task)
        for message in said:
            self.say(message)

    @property
    def is_done(self) -> bool:
        return bool(self._turns) and self._turns[-1].observation.done

    def say(self, message: Message) -> None:
        if not self.is_done:
            self._turns.append(Turn((), (), (), (), message, self._env.step(message)))

    def end(self) -> tuple[Observation, Sequence[Turn], Sequence[float]]:
        """All that was answered, and what it earns by each rubric."""
        self._env.close()
        stop = Stop.DONE if self.is_done else Stop.MAX_TURNS
        trajectory = Trajectory("", self._task.id, tuple(self._turns), stop)
        rewards = [rubric(self._task, trajectory).reward for rubric in rubrics(RewardsConfig()).values()]
        return self._opening, self._turns, rewards


def forks(name: str, seed: int = 0) -> Iterator[bool]:
    """Without end, of random (task, turn) pairs: whether the restored episode comes to the same as the other."""
    entry, rng = environment(name), random.Random(seed)
    levels = [level for level in entry.levels if _every(name, level)]
    while True:
        level = rng.choice(levels)
        task, other = (rng.choice(_every(name, level)) for _ in range(2))
        said = _worse(list(entry.oracle(task)), list(entry.oracle(other)), rng)
        yield from restored_alike(task, said, [rng.randrange(len(said)) for _ in range(FORKS_PER_TASK)])


def restored_alike(task: Task, said: Sequence[Message], turns: Sequence[int]) -> list[bool]:
    """One episode is played through; before each of `turns` that it comes to another is restored, and they go on in turn."""
    through, restored = Episode(task), list[Episode]()
    for at, message in enumerate(said):
        if through.is_done:
            break
        restored += [Episode(task, said[:at]) for _ in range(turns.count(at))]
        for episode in (through, *restored):
            episode.say(message)
    expected = through.end()
    return [episode.end() == expected for episode in restored]


def _worse(own: list[Message], other: list[Message], rng: random.Random) -> Sequence[Message]:
    """One time in five the reference as it is; now and then with a message that nobody can read."""
    if kind := rng.choice((None, *KINDS.values())):
        own = kind(own, other, rng)
    if rng.random() < SHARE_GIBBERISH:
        own.insert(rng.randrange(len(own)), GIBBERISH)
    return own


@cache
def _every(name: str, level: str) -> Sequence[Task]:
    return [task for split in SPLITS for task in environment(name).taskset(split, level)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+", metavar="ENVIRONMENT")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for name in asked.names:
        begun, alike = time.perf_counter(), 0
        for number, is_alike in enumerate(islice(forks(name, asked.seed), asked.count), start=1):
            alike += is_alike
            if not number % TOLD_EVERY:
                print(f"{name}: {alike} of {number}", flush=True)
        label = name.partition(":")[0]
        Figure(f"fork-{label}", alike, asked.count, "restored episodes alike", 1.0, f"python -m deploy.fork {name}").tell()
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
