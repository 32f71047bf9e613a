"""A language model that acts through an endpoint that can call tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from envs.endpoint import Endpoint
from envs.types import Json, Message, Task, ToolCall


def act(endpoint: Endpoint, task: Task, conversation: Sequence[Message]) -> Message:
    """The model's next message. Raises EndpointError where none comes."""
    reply = endpoint.complete(spoken(conversation), task.tools)
    return heard(reply.choices[0].message.model_dump(exclude_none=True))


def spoken(conversation: Sequence[Message]) -> list[dict[str, Json]]:
    """The conversation as OpenAI's API wants it: a call's id is what its answer refers to."""
    found: list[dict[str, Json]] = []
    waiting: list[str] = []
    for number, message in enumerate(conversation):
        if message.calls:
            waiting = [f"call-{number}-{n}" for n in range(len(message.calls))]
            calls = [_spoken_call(id, call) for id, call in zip(waiting, message.calls, strict=True)]
            found.append({"role": "assistant", "content": message.content, "tool_calls": calls})
        elif message.role == "tool" and waiting:
            found.append({"role": "tool", "tool_call_id": waiting.pop(0), "content": message.content})
        else:  # what answers a message that could not be read belongs to no call
            role = "user" if message.role == "tool" else message.role
            found.append({"role": role, "content": message.content})
    return found


def heard(told: Mapping[str, Json]) -> Message:
    """An assistant's message of that API; one whose arguments are no JSON object is malformed."""
    calls: list[ToolCall] = []
    for one in cast(list[dict[str, Any]], told.get("tool_calls") or []):
        name, text = str(one["function"]["name"]), one["function"].get("arguments") or "{}"
        try:
            arguments = json.loads(text) if isinstance(text, str) else text
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return Message("assistant", str(told.get("content") or text), malformed="arguments are not an object")
        calls.append(ToolCall(name, cast(dict[str, Json], arguments)))
    return Message("assistant", "" if calls else str(told.get("content") or ""), tuple(calls))


def _spoken_call(id: str, call: ToolCall) -> Json:
    return {"id": id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))}}
