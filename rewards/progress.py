"""The share of user turns solved, and whether the whole episode succeeded."""

from __future__ import annotations

from envs.types import Task, Trajectory
from rewards.reward import Score
from rewards.user_turns import solved, verdict


def progress(task: Task, trajectory: Trajectory) -> Score:
    """R_P, the mean over user turns of r_state * r_exec (Environment Tuning, 2510.10197, 3.4)."""
    per_turn = tuple(map(float, solved(task, trajectory)))
    return Score(sum(per_turn) / max(len(per_turn), 1), per_turn)


def success(task: Task, trajectory: Trajectory) -> Score:
    """1 where the episode succeeded, else 0: the binary reward that progress is compared with."""
    return Score(float(not verdict(task, trajectory)))
