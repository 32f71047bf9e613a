"""Evaluation is a rollout: greedy, without hints, one trajectory a task, and no learner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from statistics import fmean

from actors.env_actor import EnvActor
from cluster.metrics import LevelResult
from envs.environment import Entry, environment
from envs.types import Assignment, Group, Json, Task

REWARD = "progress"
Levels = Mapping[str, LevelResult]


def assignments(tasks: Sequence[Task], *, stage: str, reward: str = REWARD) -> tuple[Assignment, ...]:
    """One greedy assignment a task, numbered apart from those of training."""
    return tuple(Assignment(number, task, stage, 0.0, reward, group_size=1, reason=stage) for number, task in enumerate(tasks))


async def evaluate(actors: Sequence[EnvActor], tasks: Sequence[Task], *, stage: str) -> tuple[Group, ...]:
    """Every task once, at once, over all actors, after what has to be played before it."""
    ready = await _prepared(actors, tasks, stage=stage)
    plays = (actors[a.id % len(actors)].rollout(a, greedy=True) for a in assignments(ready, stage=stage))
    return tuple(await asyncio.gather(*plays))


async def _prepared(actors: Sequence[EnvActor], tasks: Sequence[Task], *, stage: str) -> list[Task]:
    """The tasks, with the state that the preludes of their environment left; each prelude is played once."""
    chains: dict[tuple[str, ...], asyncio.Task[Json]] = {}
    numbers = count(len(tasks))  # each episode is a session of its own to the engines

    async def play(chain: Sequence[Task], entry: Entry) -> Json:
        state: Json = None
        for task in chain:
            ready = entry.carry(task, state) if entry.carry else task
            issued = replace(assignments([ready], stage=stage)[0], id=next(numbers))
            group = await actors[issued.id % len(actors)].rollout(issued, greedy=True)
            turns = group.trajectories[0].turns
            last = turns[-1].observation.signals.state if turns else None
            state = last if isinstance(last, dict) else state
        return state

    async def ready(task: Task) -> Task:
        entry = environment(task.env)
        if not entry.prelude or not entry.carry:
            return task
        chain = entry.prelude(task)
        key = tuple(one.id for one in chain)
        if key not in chains:
            chains[key] = asyncio.create_task(play(chain, entry))
        return entry.carry(task, await chains[key])

    return list(await asyncio.gather(*map(ready, tasks)))


def by_level(groups: Sequence[Group]) -> Levels:
    """Success, mean reward and Solve-F1 a level."""
    results: dict[str, LevelResult] = {}
    for level in sorted({group.assignment.task.level for group in groups}):
        mine = [group for group in groups if group.assignment.task.level == level]
        success = sum(group.success for group in mine) / len(mine)
        reward = sum(sum(group.rewards) / len(group.rewards) for group in mine) / len(mine)
        f1 = fmean(one.parts.get("solve_f1", 0.0) for group in mine for one in group.trajectories)
        results[level] = LevelResult(success=success, reward=reward, num_tasks=len(mine), solve_f1=f1)
    return results
