"""BFCL's multi-turn verdict on recorded calls: state and responses, checked after each user turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from envs.bfcl.world import World
from envs.call_text import NotACall, read

EMPTY, STATE, RESPONSE = (
    "multi_turn:empty_turn_model_response",
    "multi_turn:instance_state_mismatch",
    "multi_turn:execution_response_mismatch",
)
LENGTH = "multi_turn:force_terminated"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`error` is the official class of the first failure, empty where there is none; `turn` where it was."""

    error: str = ""
    turn: int = -1

    @property
    def is_valid(self) -> bool:
        return not self.error


def judge(model: World, truth: World, turns: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> Verdict:
    """Run both lists of call strings, one list a user turn, and compare as the official checker does."""
    if len(turns) != len(reference):
        return Verdict(LENGTH, min(len(turns), len(reference)))
    seen: Counter[str] = Counter()
    for number, (calls, expected) in enumerate(zip(turns, reference, strict=True)):
        seen.update(answer(model, call) for call in calls)
        needed = Counter(answer(truth, call) for call in expected)
        if not expected:
            continue
        if not calls:
            return Verdict(EMPTY, number)
        if model.state() != truth.state():
            return Verdict(STATE, number)
        if not needed <= seen:
            return Verdict(RESPONSE, number)
    return Verdict()


def answer(world: World, text: str) -> str:
    """What the world answers to this text; one that is no call is an error like any other."""
    try:
        return world.run(read(text))
    except NotACall as error:
        return f"Error during execution: {error}"
