"""Counts that a rubric weighs below zero, so that every way of doing nothing pays less than trying."""

from __future__ import annotations

from envs.truth import references
from envs.types import Task, Trajectory
from rewards.reward import Score
from rewards.user_turns import solved, user_turns


def errors(task: Task, trajectory: Trajectory) -> Score:
    """User turns in which a call came to an error: a second try costs nothing more, or giving up would pay."""
    return _total([any(outcome.error for outcome in turn.outcomes) for turn in user_turns(task, trajectory)])


def malformed(task: Task, trajectory: Trajectory) -> Score:
    """Messages that could not be read."""
    return _total([turn.num_malformed for turn in user_turns(task, trajectory)])


def idle(task: Task, trajectory: Trajectory) -> Score:
    """Unsolved user turns that needed a call and saw none, those never reached included."""
    rows = zip(references(task), user_turns(task, trajectory), solved(task, trajectory), strict=True)
    return _total([bool(reference.calls and not turn.outcomes and not is_solved) for reference, turn, is_solved in rows])


def given_up(task: Task, trajectory: Trajectory) -> Score:
    """Unsolved user turns, but for one that was cut off at a refused call: that one tried to the end."""
    pairs = zip(user_turns(task, trajectory), solved(task, trajectory), strict=True)
    return _total([not is_solved and not (turn.state is None and turn.is_refused) for turn, is_solved in pairs])


def extra(task: Task, trajectory: Trajectory) -> Score:
    """Calls without error beyond the number of reference calls; those with one are paid for as errors."""
    pairs = zip(references(task), user_turns(task, trajectory), strict=True)
    return _total([max(sum(not o.error for o in turn.outcomes) - len(reference.calls), 0) for reference, turn in pairs])


def _total(counts: list[int]) -> Score:
    return Score(float(sum(counts)), tuple(map(float, counts)))
