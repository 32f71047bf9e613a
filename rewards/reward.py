"""The Reward protocol, and the Rubric that weighs rewards into a trajectory's scalar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from envs.types import Stop, Task, Trajectory
from rewards.user_turns import verdict


@dataclass(frozen=True, slots=True)
class Score:
    """A reward's answer: its value, and one value per user turn where it can tell them apart."""

    value: float
    per_turn: tuple[float, ...] = ()


class Reward(Protocol):
    """A pure function of the task (truth included) and the recorded trajectory."""

    def __call__(self, task: Task, trajectory: Trajectory) -> Score: ...


@dataclass(frozen=True, slots=True)
class Rubric:
    """Weighted parts: reward = sum of weight x value. `turn_rewards` come from the parts that have them, weighed alike.

    Parts without a weight are recorded and pay nothing. Success is an empty `verdict`, whatever the weights.
    """

    rewards: Mapping[str, Reward]
    weights: Mapping[str, float]

    def __call__(self, task: Task, trajectory: Trajectory) -> Trajectory:
        """The trajectory with reward, parts, turn_rewards and success filled in; one that faulted is left as it is."""
        if trajectory.stop is Stop.FAULT:
            return trajectory
        scores = {name: reward(task, trajectory) for name, reward in self.rewards.items()}
        return replace(
            trajectory,
            reward=sum(weight * scores[name].value for name, weight in self.weights.items()),
            parts={name: score.value for name, score in scores.items()},
            turn_rewards=self._turn_rewards(scores),
            success=bool(task.truth) and not verdict(task, trajectory),
        )

    def _turn_rewards(self, scores: Mapping[str, Score]) -> tuple[float, ...]:
        rows = [
            [weight * value for value in scores[name].per_turn] for name, weight in self.weights.items() if scores[name].per_turn
        ]
        return tuple(sum(column) for column in zip(*rows, strict=True))
