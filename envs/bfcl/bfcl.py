"""BFCL multi-turn as an environment."""

from __future__ import annotations

import json
from pathlib import Path

from envs import conversation
from envs.bfcl.tasks import MAX_MESSAGES, make_world
from envs.bfcl.world import World
from envs.conversation import Conversation
from envs.types import CallOutcome, Json, ToolCall

RULES = str(Path(__file__).parent.parent / "bfcl_hints.yaml")
RAISED = "Error during execution: "


class Bfcl(Conversation):
    def __init__(self) -> None:
        super().__init__(lambda task: Called(make_world(task)), max_messages=MAX_MESSAGES)


class Called(conversation.World):
    """The package's tools, whose answers are texts."""

    def __init__(self, world: World) -> None:
        self._world = world

    def run(self, call: ToolCall) -> CallOutcome:
        result = self._world.run(call)
        return CallOutcome(call, result, error_of(result))

    def state(self, answer: str) -> Json:
        return self._world.state()


def error_of(result: str) -> str:
    """The bare error that an answer tells; empty where it tells none."""
    if result.startswith(RAISED):
        return result.removeprefix(RAISED)
    try:
        body = json.loads(result) if result.startswith("{") and '"error"' in result else {}
    except ValueError:
        return ""
    return str(body.get("error", ""))
