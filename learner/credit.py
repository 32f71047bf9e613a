"""Credit: a group's rewards turned into advantages. Pure; a faulted sibling gets none and enters no baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from envs.types import Author, Group, Stop, Trajectory

EPSILON = 1e-6


class Credit(Protocol):
    """One tuple per trajectory of the group: an advantage for each turn, or () where it is not to be trained on."""

    def __call__(self, group: Group) -> tuple[tuple[float, ...], ...]: ...


def grpo(group: Group) -> tuple[tuple[float, ...], ...]:
    """(reward - mean) / (std + epsilon), with the population's std. GRPO, arXiv 2402.03300, section 4.1.2."""
    return _spread(group, lambda rewards: _scaled(_centred(rewards)))


def mean(group: Group) -> tuple[tuple[float, ...], ...]:
    """reward - mean, not scaled, so that groups of hardly any spread are not blown up. Dr. GRPO, arXiv 2503.20783."""
    return _spread(group, _centred)


def rloo(group: Group) -> tuple[tuple[float, ...], ...]:
    """reward - mean of the other siblings. RLOO, arXiv 2402.14740, section 3.2."""
    return _spread(group, lambda rewards: [x * len(rewards) / max(len(rewards) - 1, 1) for x in _centred(rewards)])


def success(group: Group) -> tuple[tuple[float, ...], ...]:
    """1 for every turn, an expert's too, where the episode succeeded; no other is kept: rejection fine-tuning."""
    return tuple(
        (1.0,) * len(trajectory.turns) if trajectory.success and trajectory.stop is not Stop.FAULT else ()
        for trajectory in group.trajectories
    )


CREDITS: dict[str, Credit] = {"grpo": grpo, "mean": mean, "rloo": rloo, "success": success}


def _spread(group: Group, score: Callable[[Sequence[float]], Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    sound = [trajectory for trajectory in group.trajectories if trajectory.stop is not Stop.FAULT]
    for trajectory in sound:
        if not math.isfinite(trajectory.reward):
            raise ValueError(f"trajectory {trajectory.id!r} has the reward {trajectory.reward}: rewards must be finite")
    scores = iter(score([trajectory.reward for trajectory in sound]))
    return tuple(
        () if trajectory.stop is Stop.FAULT else _per_turn(trajectory, next(scores)) for trajectory in group.trajectories
    )


def _per_turn(trajectory: Trajectory, advantage: float) -> tuple[float, ...]:
    # An expert's turn is context: it says nothing of how good the policy's own choices were.
    return tuple(advantage if turn.author is Author.POLICY else 0.0 for turn in trajectory.turns)


def _centred(rewards: Sequence[float]) -> list[float]:
    # Rewards alike up to rounding are exactly alike here: a std of 1e-17 must not become a signal.
    if not rewards or max(rewards) - min(rewards) <= EPSILON:
        return [0.0] * len(rewards)
    baseline = math.fsum(rewards) / len(rewards)
    return [reward - baseline for reward in rewards]


def _scaled(centred: Sequence[float]) -> list[float]:
    std = math.sqrt(math.fsum(x * x for x in centred) / max(len(centred), 1))
    return [x / (std + EPSILON) for x in centred]
