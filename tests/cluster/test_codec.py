"""What a checkpoint keeps comes back equal."""

import json

import pytest

from cluster.codec import dumps, loads
from envs.types import (
    Assignment,
    CallOutcome,
    Group,
    Message,
    Observation,
    Signals,
    Span,
    Stop,
    Task,
    ToolCall,
    Trajectory,
    Turn,
)
from learner.buffer import BufferState

CALL = ToolCall("find", {"name": "lamp", "deep": [1, {"x": None}]})
TASK = Task("t", "shop", "1", (Message("user", "é"),), ({"type": "function"},), {"seed": 1}, ({"calls": []},))
TURN = Turn(
    (1, 2),
    (3,),
    (-0.25,),
    (Span(4, 0, 1),),
    Message("assistant", "x", (CALL,)),
    Observation((Message("tool", "{}"),), True, Signals((CallOutcome(CALL, {"id": "i1"}),), state={"cart": {}})),
)
GROUP = Group(Assignment(3, TASK, "easy", 0.5, "progress", 1), (Trajectory("3-0", "t", (TURN,), Stop.DONE, 0.5, {"a": 1.0}),))


def test_records_come_back_equal() -> None:
    state = BufferState(7, (GROUP,))
    assert loads(BufferState, dumps(state)) == state


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="no BufferState"):
        loads(BufferState, "[1]")


def test_a_record_of_an_older_version_has_no_later_fields() -> None:
    state = json.loads(dumps(BufferState(7, (GROUP,))))
    del state[1][0][2:]  # a group's fields after its trajectories, which have defaults
    assert loads(BufferState, json.dumps(state)) == BufferState(7, (GROUP,))
    del state[1][0][1]
    with pytest.raises(ValueError, match="no Group"):
        loads(BufferState, json.dumps(state))


def test_half_a_surrogate_pair_comes_back_from_a_file(tmp_path) -> None:
    """As a policy can write it in JSON."""
    odd = ToolCall("find", {"name": "\ud83d"})
    path = tmp_path / "run.json"
    path.write_text(dumps(odd), encoding="utf-8")
    assert loads(ToolCall, path.read_text(encoding="utf-8")) == odd
