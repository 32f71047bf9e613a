"""The environment's own score, where it gives one: ScienceWorld's and WebShop's."""

from __future__ import annotations

from envs.types import Task, Trajectory
from rewards.reward import Score
from rewards.user_turns import UserTurn, user_turns


def points(task: Task, trajectory: Trajectory) -> Score:
    """Mean over user turns of `score`, 0 to 1, in the state where the turn ended; else in its last result, or 0."""
    per_turn = tuple(map(_points, user_turns(task, trajectory)))
    return Score(sum(per_turn) / max(len(per_turn), 1), per_turn)


def _points(turn: UserTurn) -> float:
    """A turn that a run's limit cut off has no state: there the score so far counts, if results tell it."""
    told = [turn.state, *(outcome.result for outcome in reversed(turn.outcomes))]
    scores = (one["score"] for one in told if isinstance(one, dict) and "score" in one)
    score = next(scores, 0.0)
    return float(score) if isinstance(score, int | float) else 0.0
