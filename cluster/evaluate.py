"""Evaluation is a rollout: greedy, without hints, one trajectory a task, and no learner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from actors.env_actor import EnvActor
from cluster.metrics import LevelResult
from envs.types import Assignment, Group, Task

REWARD = "progress"
Levels = Mapping[str, LevelResult]


def assignments(tasks: Sequence[Task], *, stage: str, reward: str = REWARD) -> tuple[Assignment, ...]:
    """One greedy assignment a task, numbered apart from those of training."""
    return tuple(Assignment(number, task, stage, 0.0, reward, group_size=1, reason=stage) for number, task in enumerate(tasks))


async def evaluate(actors: Sequence[EnvActor], tasks: Sequence[Task], *, stage: str) -> tuple[Group, ...]:
    """Every task once, at once, over all actors."""
    issued = assignments(tasks, stage=stage)
    plays = (actors[a.id % len(actors)].rollout(a, greedy=True) for a in issued)
    return tuple(await asyncio.gather(*plays))


def by_level(groups: Sequence[Group]) -> Levels:
    """Success and mean reward a level."""
    results: dict[str, LevelResult] = {}
    for level in sorted({group.assignment.task.level for group in groups}):
        mine = [group for group in groups if group.assignment.task.level == level]
        success = sum(group.success for group in mine) / len(mine)
        reward = sum(sum(group.rewards) / len(group.rewards) for group in mine) / len(mine)
        results[level] = LevelResult(success=success, reward=reward, num_tasks=len(mine))
    return results
