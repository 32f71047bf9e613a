"""The first stage's reward: well-formed messages and calls without error."""

from __future__ import annotations

from envs.types import Author, Task, Trajectory, Turn
from rewards.reward import Score


def format(task: Task, trajectory: Trajectory) -> Score:
    """I_tool * (R_format + R_tool), 0 to 2 (Environment Tuning, 2510.10197, eq. 1-2).

    R_format is `well_formed`. R_tool: share of calls without error. I_tool: any call was made. Those replayed at the start
    are not the policy's: to answer at once after them would be worth more than to try.
    """
    outcomes = [outcome for turn in _own(trajectory) for outcome in turn.observation.signals.outcomes]
    if not outcomes:
        return Score(0.0)
    correct = sum(not outcome.error for outcome in outcomes) / len(outcomes)
    return Score(well_formed(task, trajectory).value + correct)


def well_formed(task: Task, trajectory: Trajectory) -> Score:
    """R_format: the share of messages that could be read."""
    messages = _own(trajectory)
    return Score(sum(not turn.observation.signals.malformed for turn in messages) / max(len(messages), 1))


def _own(trajectory: Trajectory) -> list[Turn]:
    """The policy's turns; of an expert alone all of them."""
    return [turn for turn in trajectory.turns if turn.author is Author.POLICY] or list(trajectory.turns)
