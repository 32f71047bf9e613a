"""The environment's own score, where it gives one: ScienceWorld's and WebShop's."""

from __future__ import annotations

from envs.types import Task, Trajectory
from rewards.reward import Score
from rewards.user_turns import user_turns


def points(task: Task, trajectory: Trajectory) -> Score:
    """Mean over user turns of `score` (0 to 1) in the state where the turn ended; 0 where it has none, or never ended."""
    states = [turn.state for turn in user_turns(task, trajectory)]
    scores = [state.get("score") if isinstance(state, dict) else None for state in states]
    per_turn = tuple(float(score) if isinstance(score, int | float) else 0.0 for score in scores)
    return Score(sum(per_turn) / max(len(per_turn), 1), per_turn)
