"""Holds environments, and rolls out a group at a time, many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from actors.config import ActorsConfig
from actors.engine import Engine, Sampling
from actors.renderer import Renderer
from actors.rollout import Limits, NotReplayed, Rollout
from envs.augmentation import Augmented, Rules
from envs.environment import Environment, environment
from envs.types import Assignment, Group, Stop, Trajectory
from rewards.reward import Rubric

GREEDY = 0.0


class GroupFault(RuntimeError):
    """The machine failed a sibling more often than it is allowed to; the assignment must be issued again."""


class EnvActor:
    """A long-lived acting process: environments, the renderer and the rewards beside them."""

    def __init__(self, config: ActorsConfig, engine: Engine, *, model: str, rules: Rules, rubrics: Mapping[str, Rubric]) -> None:
        self._config, self._engine, self._rules, self._rubrics = config, engine, rules, rubrics
        self._renderer = Renderer(model, config.calls)
        self._limits = Limits(config.max_turns, config.engine.max_model_len, config.deadline_s)

    async def rollout(self, assignment: Assignment, *, greedy: bool = False) -> Group:
        """The siblings that finished first, rewarded; a faulted one is played again up to `fault_retries` times.

        Raises GroupFault where one faulted more often. What is not waited for is cancelled.
        """
        count = assignment.group_size + (0 if greedy else self._config.redundancy)
        lost: list[int] = []
        running = [asyncio.create_task(self._sibling(assignment, n, greedy=greedy, lost=lost)) for n in range(count)]
        try:
            first = asyncio.as_completed(running)
            finished = [await next(first) for _ in range(assignment.group_size)]
        finally:
            for sibling in running:
                sibling.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        order = [f"{assignment.id}-{number}" for number in range(count)]
        finished.sort(key=lambda trajectory: order.index(trajectory.id))
        return Group(assignment, tuple(finished), tuple(lost))

    async def _sibling(self, assignment: Assignment, number: int, *, greedy: bool, lost: list[int]) -> Trajectory:
        """Adds to `lost` the tokens it had sampled where it is cancelled."""
        trajectory_id, fault = f"{assignment.id}-{number}", ""
        begun = _begun(assignment, number)
        for attempt in range(self._config.fault_retries + 1):
            seed = (assignment.seed + 104729 * number + attempt) % 2**31
            sampling = self._sampling(GREEDY if greedy else assignment.temperature or self._config.temperature, seed)
            env, is_quick = self._environment(assignment, number), environment(assignment.task.env).is_quick
            play = Rollout(env, self._engine, self._renderer, limits=self._limits, is_quick=is_quick)
            try:
                trajectory = await play(begun, sampling, trajectory_id=trajectory_id)
            except NotReplayed as error:  # no use in trying again
                return Trajectory(trajectory_id, assignment.task.id, (), Stop.FAULT, fault=str(error))
            except asyncio.CancelledError:
                lost.append(play.num_action_tokens)
                raise
            finally:
                await self._engine.forget(trajectory_id)
            if trajectory.stop is not Stop.FAULT:
                return self._rewarded(assignment, trajectory)
            fault = trajectory.fault
        raise GroupFault(f"assignment {assignment.id}, task {assignment.task.id}: {fault}")

    def _rewarded(self, assignment: Assignment, trajectory: Trajectory) -> Trajectory:
        begun = time.monotonic()
        rewarded = self._rubrics[assignment.reward](assignment.task, trajectory)
        seconds = time.monotonic() - begun
        return replace(rewarded, seconds=rewarded.seconds + seconds, spent={**rewarded.spent, "reward": seconds})

    def _sampling(self, temperature: float, seed: int) -> Sampling:
        top_p = self._config.top_p if temperature else 1.0
        return Sampling(temperature, top_p, self._config.max_action_tokens, seed, stops=(self._renderer.eos,))

    def _environment(self, assignment: Assignment, number: int) -> Environment:
        bare = environment(assignment.task.env).make()
        if not assignment.augmentation:
            return bare
        return Augmented(bare, self._rules, strength=assignment.augmentation, seed=assignment.seed + number)


def _begun(assignment: Assignment, number: int) -> Assignment:
    """With that sibling's own start."""
    if not assignment.depths:
        return assignment
    return replace(assignment, start=assignment.start[: assignment.depths[number % len(assignment.depths)]])
