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
    """An assistant's message of that API; one whose arguments are no JSON object is malformed. ValueError where it is none."""
    calls: list[ToolCall] = []
    content = _words(told.get("content"))
    if told.get("function_call"):
        raise ValueError("a message has 'function_call'; write it as 'tool_calls'")
    for one in cast(list[Json], told.get("tool_calls") or []):
        match one:
            case {"function": {"name": str(name), **function}}:
                text: Any = function.get("arguments") or "{}"
            case _:
                raise ValueError(f"{str(one)[:80]!r} is no tool call; it has a function with name and arguments")
        try:
            arguments = json.loads(text) if isinstance(text, str) else text
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return Message("assistant", content or str(text), malformed="arguments are not an object")
        calls.append(ToolCall(name, cast(dict[str, Json], arguments)))
    return Message("assistant", "" if calls else content, tuple(calls))


def _words(content: Json) -> str:
    """What is said, whether as a text or in parts."""
    match content:
        case None:
            return ""
        case str():
            return content
        case [*parts] if all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in parts):
            return "".join(str(one["text"]) for one in cast(list[dict[str, Json]], parts))
        case _:
            raise ValueError(f"a content of {str(content)[:80]!r} is no text")


def _spoken_call(id: str, call: ToolCall) -> Json:
    return {"id": id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))}}
