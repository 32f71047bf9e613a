"""The share of the reference calls that were made: finer than progress, and nothing for repeated or useless calls."""

from __future__ import annotations

from itertools import chain, repeat

from envs.truth import Reference, canonical, references
from envs.types import CallOutcome, Json, Task, ToolCall, Trajectory
from rewards.reward import Score
from rewards.user_turns import solved, user_turns


def calls(task: Task, trajectory: Trajectory) -> Score:
    """Reference calls made / reference calls, 0 to 1; per turn alike.

    Within a user turn they count in order, up to the first one missing, which counts half where its tool was the first
    called in its place, if wrongly. A call whose equal gave the equal result earlier in the episode need not be made again.
    A user turn that is solved has made its calls, in whatever words: 5000 for 5000.0, a default written out.
    """
    known: set[str] = set()
    made: list[float] = []
    turns = references(task)
    for reference, turn, is_solved in zip(turns, user_turns(task, trajectory), solved(task, trajectory), strict=True):
        count = _made(reference, turn.outcomes, known)
        made.append(float(len(reference.calls)) if is_solved else count)
    total = sum(len(reference.calls) for reference in turns)
    per_turn = tuple(count / max(len(reference.calls), 1) for count, reference in zip(made, turns, strict=True))
    return Score(sum(made) / max(total, 1), per_turn)


def _made(reference: Reference, outcomes: tuple[CallOutcome, ...], known: set[str]) -> float:
    """How many of one user turn's calls were made. Adds the turn's successful calls to `known`."""
    needed = [_key(call) for call in reference.calls]
    # Where results are not recorded (τ²-bench's), no earlier call can be known to have had them.
    effects = [_key(*pair) for pair in zip(reference.calls, chain(reference.results, repeat(None)), strict=False)]
    count = 0
    wrong = ""  # the tool called first, and in vain, since the last call that counted
    for outcome in outcomes:
        count = _skip_known(effects, count, known)
        is_next = count < len(needed) and not outcome.error and _key(outcome.call) == needed[count]
        wrong = "" if is_next else wrong or outcome.call.name
        count += is_next
        if not outcome.error:
            known.add(_key(outcome.call, outcome.result))
    count = _skip_known(effects, count, known)
    return count + (0.5 if count < len(needed) and wrong == reference.calls[count].name else 0.0)


def _skip_known(effects: list[str], count: int, known: set[str]) -> int:
    while count < len(effects) and effects[count] in known:
        count += 1
    return count


def _key(call: ToolCall, result: Json = None) -> str:
    return canonical([call.name, dict(call.arguments), result])
