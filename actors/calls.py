"""How a policy writes its tool calls: as text, and back. Reading never fails and never runs anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envs.call_text import NotACall, read_list, tool_call
from envs.types import Json, Message, ToolCall

TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
OPEN_TAG, CLOSE_TAG = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class CallFormat:
    """`form` tells a policy in a line how to write a call, where the chat template asks for it."""

    form: str
    write: Callable[[Sequence[ToolCall]], str]
    read: Callable[[str], tuple[ToolCall, ...] | str]  # or why the text cannot be read; () where it makes no call

    def parse(self, text: str, *, is_cut: bool = False) -> Message:
        """The assistant's message that `text` is; `is_cut` where the token limit ended it."""
        found = self.read(text)
        if is_cut and not found:
            found = "cut off at the token limit"
        return Message("assistant", text, malformed=found) if isinstance(found, str) else Message("assistant", text, found)


def _write_tagged(calls: Sequence[ToolCall]) -> str:
    values = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    return "".join(OPEN_TAG + json.dumps(value) + CLOSE_TAG for value in values)


def _read_tagged(text: str) -> tuple[ToolCall, ...] | str:
    calls: list[ToolCall] = []
    for body in TAGGED.findall(text):
        call = _read_json(body)
        if isinstance(call, str):
            return call
        calls.append(call)
    rest = TAGGED.sub("", text)
    return "unbalanced tags" if OPEN_TAG in rest or CLOSE_TAG in rest else tuple(calls)


def _read_json(text: str) -> ToolCall | str:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return "no name"
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        return "arguments are not an object"
    return ToolCall(value["name"], arguments)


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")


def _write_python(calls: Sequence[ToolCall]) -> str:
    parts = [f"{call.name}({', '.join(f'{key}={_literal(value)}' for key, value in call.arguments.items())})" for call in calls]
    return f"[{', '.join(parts)}]"


def _literal(value: Json) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # double quotes, as most code has them
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
    return repr(value)


def _read_python(text: str) -> tuple[ToolCall, ...] | str:
    if not text.lstrip().startswith("["):
        return ()
    try:
        return tuple(map(tool_call, read_list(text)))
    except NotACall as error:
        return str(error)


CALL_FORMATS = {
    # Hermes' and Qwen's.
    "json": CallFormat('<tool_call>{"name": ..., "arguments": {...}}</tool_call>', _write_tagged, _read_tagged),
    # Llama's and BFCL's: a third of the tokens. A message that begins with "[" is calls and nothing else.
    "python": CallFormat("[tool(argument=value)]", _write_python, _read_python),
}
