"""BFCL multi-turn as an environment: user turns revealed one at a time around a world of tool classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from envs.bfcl.tasks import MAX_MESSAGES, make_world
from envs.bfcl.world import World
from envs.types import CallOutcome, Message, Observation, Signals, Task, ToolCall

RULES = str(Path(__file__).parent.parent / "bfcl_hints.yaml")
RAISED = "Error during execution: "


class Bfcl:
    """A message with calls runs them; one without ends the user turn; one that could not be read is told so."""

    def __init__(self) -> None:
        self._world: World | None = None
        self._requests: list[str] = []
        self._num_messages = 0

    def reset(self, task: Task) -> Observation:
        self._world = make_world(task)
        self._requests = cast(list[str], task.payload["requests"])[1:]
        self._num_messages = 0
        return Observation(task.messages)

    def step(self, message: Message) -> Observation:
        if self._world is None:
            raise RuntimeError("the episode is over or has not begun: call reset(task) first")
        self._num_messages += 1
        if not message.calls and not message.malformed:
            return self._end_user_turn(self._world)
        outcomes = () if message.malformed else tuple(_outcome(self._world, call) for call in message.calls)
        contents = [str(outcome.result) for outcome in outcomes] or [json.dumps({"error": "malformed"})]
        done = self._num_messages >= MAX_MESSAGES
        if done:
            self._world = None
        return Observation(tuple(Message("tool", text) for text in contents), done, Signals(outcomes, message.malformed))

    def close(self) -> None:
        self._world = None

    def _end_user_turn(self, world: World) -> Observation:
        self._num_messages = 0
        signals = Signals(state=world.state())
        if not self._requests:
            self._world = None
            return Observation((), True, signals)
        request, *self._requests = self._requests
        return Observation((Message("user", request),), False, signals)


def _outcome(world: World, call: ToolCall) -> CallOutcome:
    result = world.run(call)
    return CallOutcome(call, result, error_of(result))


def error_of(result: str) -> str:
    """The bare error that an answer tells; empty where it tells none."""
    if result.startswith(RAISED):
        return result.removeprefix(RAISED)
    try:
        body = json.loads(result) if result.startswith("{") and '"error"' in result else {}
    except ValueError:
        return ""
    return str(body.get("error", ""))
