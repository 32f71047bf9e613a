"""A constructed environment: tools are Python functions that somebody else wrote, run in the sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from typing import cast

from envs.construct.stage import misfit
from envs.conversation import Conversation, World
from envs.sandbox import Sandbox, SandboxError
from envs.types import CallOutcome, Json, Task, ToolCall

MAX_MESSAGES = 20  # as published


class Constructed(Conversation):
    def __init__(self) -> None:
        super().__init__(Tools, max_messages=MAX_MESSAGES)


class Tools(World):
    """The functions of one task. They keep no state: each call runs by itself."""

    def __init__(self, task: Task) -> None:
        self._codes = cast(dict[str, str], task.payload["codes"])
        self._documents = {str(tool["name"]): tool for tool in (cast(dict[str, Json], one["function"]) for one in task.tools)}

    def run(self, call: ToolCall) -> CallOutcome:
        if call.name not in self._documents:
            return CallOutcome(call, None, f"no tool is called {call.name}")
        if objection := misfit(self._documents[call.name], call.arguments):
            return CallOutcome(call, None, objection)
        given = _sandbox().call(self._codes[call.name], call.name, call.arguments)
        return CallOutcome(call, given.result, given.error or error_of(given.result))

    def tell(self, outcome: CallOutcome) -> str:
        if outcome.error and outcome.result is None:
            return json.dumps({"error": outcome.error}, ensure_ascii=False)
        return outcome.result if isinstance(outcome.result, str) else json.dumps(outcome.result, ensure_ascii=False)

    def state(self, answer: str) -> Json:
        return {}


def error_of(result: Json) -> str:
    """What a tool says went wrong: {"error": text}, or a text that begins with "Error"; empty where nothing did."""
    if isinstance(result, Mapping):
        return str(result.get("error") or "")
    return result if isinstance(result, str) and result.lower().startswith("error") else ""


def open_sandbox() -> Sandbox:
    """TILTYARD_INSECURE=1 takes the isolation away, where it cannot be had. Raises ValueError."""
    try:
        return Sandbox(workers=min(os.cpu_count() or 1, 4), insecure=os.environ.get("TILTYARD_INSECURE") == "1")
    except SandboxError as error:
        raise ValueError(str(error)) from error


_sandbox = cache(open_sandbox)  # this process's own
