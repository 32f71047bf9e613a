"""The first stage's reward: well-formed messages and calls without error."""

from __future__ import annotations

from envs.types import Task, Trajectory
from rewards.reward import Score


def format(task: Task, trajectory: Trajectory) -> Score:
    """I_tool * (R_format + R_tool), 0 to 2 (Environment Tuning, 2510.10197, eq. 1-2).

    R_format: share of messages that are not malformed. R_tool: share of calls without error. I_tool: any call was made.
    """
    signals = [turn.observation.signals for turn in trajectory.turns]
    outcomes = [outcome for signal in signals for outcome in signal.outcomes]
    if not outcomes:
        return Score(0.0)
    well_formed = sum(not signal.malformed for signal in signals) / len(signals)
    correct = sum(not outcome.error for outcome in outcomes) / len(outcomes)
    return Score(well_formed + correct)
