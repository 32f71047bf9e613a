"""The share of user turns solved."""

from __future__ import annotations

from envs.types import Task, Trajectory
from rewards.reward import Score
from rewards.user_turns import solved


def progress(task: Task, trajectory: Trajectory) -> Score:
    """R_P, the mean over user turns of r_state * r_exec (Environment Tuning, 2510.10197, 3.4)."""
    per_turn = tuple(map(float, solved(task, trajectory)))
    return Score(sum(per_turn) / max(len(per_turn), 1), per_turn)
