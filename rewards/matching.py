"""How much the calls made look like the reference calls, whatever they did: ToolRL's reward, kept as a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

from envs.truth import canonical, references
from envs.types import Json, Task, ToolCall, Trajectory
from rewards.reward import Score
from rewards.user_turns import user_turns

HIGHEST = 3.0


def matching(task: Task, trajectory: Trajectory) -> Score:
    """R_correct, -3 to 3, the mean over user turns (ToolRL, 2504.13958, section 3.2).

    Names, argument names and argument values are compared; where a turn has no reference calls, 3 for none and -3 for any.
    """
    pairs = zip(references(task), user_turns(task, trajectory), strict=True)
    per_turn = tuple(_correct([o.call for o in turn.outcomes], reference.calls) for reference, turn in pairs)
    return Score(sum(per_turn) / max(len(per_turn), 1), per_turn)


def _correct(made: Sequence[ToolCall], expected: Sequence[ToolCall]) -> float:
    if not made or not expected:
        return HIGHEST if not made and not expected else -HIGHEST
    names = _overlap(Counter(call.name for call in made), Counter(call.name for call in expected))
    places = product(range(len(made)), range(len(expected)))
    pairs = [(_alike(made[n].arguments, expected[m].arguments), n, m) for n, m in places if made[n].name == expected[m].name]
    used, filled, total = set[int](), set[int](), 0.0
    for alike, n, m in sorted(pairs, reverse=True):  # each call is compared with one other, the likest first
        if n not in used and m not in filled:
            used.add(n)
            filled.add(m)
            total += alike
    most = 1 + len(expected) + sum(len(call.arguments) for call in expected)
    return 2 * HIGHEST * (names + total) / most - HIGHEST


def _alike(made: Mapping[str, Json], expected: Mapping[str, Json]) -> float:
    """Of the arguments, the share of names in common and the number of equal values; at most 1 + len(expected)."""
    equal = sum(name in made and canonical(made[name]) == canonical(value) for name, value in expected.items())
    return _overlap(dict.fromkeys(made, 1), dict.fromkeys(expected, 1)) + equal


def _overlap(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    one, other = Counter(first), Counter(second)
    return (one & other).total() / (one | other).total() if one or other else 1.0
