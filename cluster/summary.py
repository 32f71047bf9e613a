"""What the groups of a step come to, as metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from envs.types import Author, Group, Stop
from learner.buffer import lag


def summarise(finished: Sequence[Group], trained: Sequence[Group], *, version: int, seconds: float) -> Mapping[str, float]:
    """Means over all finished trajectories (filtered ones too, or success would be biased), and the batch's lag.

    Success is that of episodes played from their beginning, where there are any; groups of one message each have none.
    """
    trajectories = [trajectory for group in finished for trajectory in group.trajectories]
    if not trajectories:
        return {"buffer/lag": lag(trained, version), "buffer/groups": float(len(trained))}
    episodes = [trajectory for group in finished if not group.assignment.max_turns for trajectory in group.trajectories]
    whole = [one for one in episodes if all(turn.author is Author.POLICY for turn in one.turns)]
    count = len(trajectories)
    # The part of that name is of all trajectories, those begun midway too.
    names = sorted({name for trajectory in trajectories for name in trajectory.parts} - {"success"})
    tokens = sum(trajectory.num_action_tokens for trajectory in trajectories)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    cancelled = [length for group in finished for length in group.cancelled]
    return {
        "rewards/mean": sum(trajectory.reward for trajectory in trajectories) / count,
        **({"rewards/success": fmean(trajectory.success for trajectory in whole or episodes)} if episodes else {}),
        **{f"rewards/{name}": sum(t.parts.get(name, 0.0) for t in trajectories) / count for name in names},
        "actors/turns": len(turns) / count,
        "actors/temperature": sum(turn.temperature for turn in turns) / len(turns) if turns else 0.0,
        "actors/entropy": entropy(trained or finished) or 0.0,
        "actors/hints": sum(len(trajectory.hints) for trajectory in trajectories) / count,
        "actors/max_turns": sum(trajectory.stop is Stop.MAX_TURNS for trajectory in trajectories) / count,
        "actors/tokens": float(tokens),
        "actors/tokens_per_s": tokens / seconds if seconds else 0.0,
        "actors/trajectories": float(count),
        "actors/unreplayed": float(sum(trajectory.stop is Stop.FAULT for trajectory in trajectories)),
        "actors/tokens_each": tokens / count,
        **({"actors/cancelled": float(len(cancelled)), "actors/cancelled_tokens_each": fmean(cancelled)} if cancelled else {}),
        "buffer/lag": lag(trained, version),
        "buffer/groups": float(len(trained)),
    }


def entropy(groups: Sequence[Group]) -> float | None:
    """Nats a token of the policy that sampled, at the temperature it sampled with: the mean of its own surprise."""
    turns = (turn for group in groups for trajectory in group.trajectories for turn in trajectory.turns)
    logprobs = [logprob for turn in turns if turn.author is Author.POLICY for logprob in turn.logprobs]
    return -fmean(logprobs) if logprobs else None
