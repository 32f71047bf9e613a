"""Failures made from a seed, and a model that acts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.agent import heard, spoken
from envs.degrade import KINDS
from envs.environment import environment
from envs.types import Message, ToolCall

SHOP = environment("shop")
POOL = SHOP.taskset("train", "2")


@given(st.integers(0, 99), st.integers(0, 99), st.integers(), st.sampled_from(sorted(KINDS)))
def test_every_kind_differs_from_the_reference_where_it_says(own: int, other: int, seed: int, kind: str):
    right, elsewhere = list(SHOP.oracle(POOL[own])), list(SHOP.oracle(POOL[other]))
    worse = KINDS[kind](right, elsewhere, random.Random(seed))
    assert worse and worse == KINDS[kind](right, elsewhere, random.Random(seed))
    match kind:
        case "early_stop":
            assert len(worse) < len(right) and worse[:-1] == right[: len(worse) - 1] and not worse[-1].calls
        case "wrong_branch":
            same = next((n for n, pair in enumerate(zip(worse, right, strict=False)) if pair[0] != pair[1]), len(worse))
            assert worse[same:] == elsewhere[same:] or worse[same:] == elsewhere[-1:]
        case "wrong_argument":
            (at,) = [n for n, pair in enumerate(zip(worse, right, strict=True)) if pair[0] != pair[1]]
            told, was = worse[at].calls[0], right[at].calls[0]
            assert told.name == was.name and sum(told.arguments[k] != was.arguments[k] for k in was.arguments) == 1
        case _:
            extra = len(worse) - len(right)
            assert 1 <= extra <= 3 and all(one.calls for one in worse if one not in right)


def test_an_argument_can_be_made_up():
    right = list(SHOP.oracle(POOL[0]))
    worse = KINDS["wrong_argument"](right, right, random.Random(0))
    assert worse != right


def test_a_conversation_is_spoken_and_heard_as_the_api_has_it():
    calls = (ToolCall("find", {"name": "lamp"}), ToolCall("checkout", {}))
    said = [
        Message("user", "hello"), Message("assistant", "", calls), Message("tool", "1"), Message("tool", "2"),
        Message("assistant", "<oops", malformed="not JSON"), Message("tool", "malformed"), Message("assistant", "Done"),
    ]  # fmt: skip
    api = spoken(said)
    assert [one["role"] for one in api] == ["user", "assistant", "tool", "tool", "assistant", "user", "assistant"]
    ids = [call["id"] for call in api[1]["tool_calls"]]
    assert [api[2]["tool_call_id"], api[3]["tool_call_id"]] == ids and len(set(ids)) == 2
    assert heard(api[1]) == Message("assistant", "", calls) and heard(api[6]) == Message("assistant", "Done")


@pytest.mark.parametrize("arguments", ["[1]", "{", "7", "[" * 100_000])
def test_arguments_that_are_no_object_are_malformed(arguments: str):
    message = heard({"tool_calls": [{"function": {"name": "find", "arguments": arguments}}]})
    assert message.malformed and not message.calls
