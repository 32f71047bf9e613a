"""Evaluation is a rollout: greedy, without hints, one trajectory a task, and no learner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from statistics import fmean

from actors.env_actor import EnvActor, GroupFault
from cluster.metrics import LevelResult
from envs.environment import Entry, environment
from envs.types import Assignment, Group, Json, Stop, Task, Trajectory

REWARD = "progress"
FIRST = 10**9  # id of an evaluation's assignments, whose sessions run beside those of training
Levels = Mapping[str, LevelResult]


def assignments(tasks: Sequence[Task], *, stage: str, reward: str = REWARD) -> tuple[Assignment, ...]:
    """One greedy assignment a task, numbered apart from those of training."""
    return tuple(Assignment(id, task, stage, 0.0, reward, group_size=1, reason=stage) for id, task in enumerate(tasks, FIRST))


async def evaluate(actors: Sequence[EnvActor], tasks: Sequence[Task], *, stage: str) -> tuple[Group, ...]:
    """Every task once, at once, over all actors, after what has to be played before it.

    One that the machine fails for good costs its own result, not the others'; raises GroupFault where it fails all.
    """
    ready = await _prepared(actors, tasks, stage=stage)
    groups = await asyncio.gather(*(_play(actors, one) for one in assignments(ready, stage=stage)))
    if groups and all(map(is_failed, groups)):
        raise GroupFault(f"the machine failed all {len(groups)} tasks of an evaluation; the last: {fault_of(groups[-1])}")
    return tuple(groups)


async def _play(actors: Sequence[EnvActor], assignment: Assignment) -> Group:
    try:
        return await actors[assignment.id % len(actors)].rollout(assignment, greedy=True)
    except GroupFault as fault:
        reason = str(fault).splitlines()[-1]  # what crossed Ray brings its trace along
        failed = Trajectory(f"{assignment.id}-0", assignment.task.id, (), Stop.FAULT, fault=reason)
        return Group(assignment, (failed,))


async def _prepared(actors: Sequence[EnvActor], tasks: Sequence[Task], *, stage: str) -> list[Task]:
    """The tasks, with the state that the preludes of their environment left; each prelude is played once."""
    chains: dict[tuple[str, ...], asyncio.Task[Json]] = {}
    numbers = count(FIRST + len(tasks))  # each episode is a session of its own to the engines

    async def play(chain: Sequence[Task], entry: Entry) -> Json:
        state: Json = None
        for task in chain:
            ready = entry.carry(task, state) if entry.carry else task
            issued = replace(assignments([ready], stage=stage)[0], id=next(numbers))
            group = await _play(actors, issued)
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
    """Success, mean reward and Solve-F1 a level, without what the machine failed."""
    results: dict[str, LevelResult] = {}
    groups = [group for group in groups if not is_failed(group)]
    for level in sorted({group.assignment.task.level for group in groups}):
        mine = [group for group in groups if group.assignment.task.level == level]
        success = sum(group.success for group in mine) / len(mine)
        reward = sum(sum(group.rewards) / len(group.rewards) for group in mine) / len(mine)
        f1 = fmean(one.parts.get("solve_f1", 0.0) for group in mine for one in group.trajectories)
        results[level] = LevelResult(success=success, reward=reward, num_tasks=len(mine), solve_f1=f1)
    return results


def fault_of(group: Group) -> str:
    return next((one.fault for one in group.trajectories if one.fault), "")


def is_failed(group: Group) -> bool:
    """Whether the machine failed it, so that it says nothing of the policy."""
    return all(one.stop is Stop.FAULT for one in group.trajectories)
