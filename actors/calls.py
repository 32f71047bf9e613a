"""How a policy writes its tool calls: as text, and back. Reading never fails and never runs anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envs.call_text import NotACall, read_list, tool_call
from envs.types import Json, Message, ToolCall

TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
THOUGHT = re.compile(
    r"\s*<think>(?:(?!</think>).)*</think>\s*(?:<tool_call>(?P<calls>.*)</tool_call>|<answer>(?P<answer>.*)</answer>)\s*",
    re.DOTALL,
)
OPEN_TAG, CLOSE_TAG = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class CallFormat:
    """`form` tells a policy in a line how to write a call, where the chat template asks for it."""

    form: str
    write: Callable[[Sequence[ToolCall]], str]
    read: Callable[[str], tuple[ToolCall, ...] | str]  # or why the text cannot be read; () where it makes no call
    answer: str = "{}"  # how an answer is written

    def say(self, text: str) -> str:
        """An answer in the format, be it already or not."""
        return self.answer.replace("{}", text) if isinstance(self.read(text), str) else text

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


def _read_json(text: str, key: str = "arguments") -> ToolCall | str:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "not JSON"
    return _call_of(value, key)


def _call_of(value: object, key: str = "arguments") -> ToolCall | str:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return "no name"
    arguments = value.get(key, {})
    if not isinstance(arguments, dict):
        return f"{key} are not an object"
    return ToolCall(value["name"], arguments)


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")


def _write_thought(calls: Sequence[ToolCall]) -> str:
    values = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    return f"<think>A call is due.</think>{OPEN_TAG}{json.dumps(values)}{CLOSE_TAG}"


def _read_thought(text: str) -> tuple[ToolCall, ...] | str:
    found = THOUGHT.fullmatch(text)
    if not found:
        return "not <think> and then <tool_call> or <answer>, and nothing else"
    if found["answer"] is not None:
        return ()
    try:
        values = json.loads(found["calls"], parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(values, list) or not values:
        return "not a list of calls"
    calls = [_call_of(value) for value in values]
    return next((call for call in calls if isinstance(call, str)), tuple(call for call in calls if isinstance(call, ToolCall)))


def _write_bare(calls: Sequence[ToolCall]) -> str:
    return "; ".join(json.dumps({"name": call.name, "parameters": dict(call.arguments)}) for call in calls)


def _read_bare(text: str) -> tuple[ToolCall, ...] | str:
    rest = text.strip().removeprefix("<|python_tag|>").strip()
    calls: list[ToolCall] = []
    while rest.startswith("{"):
        try:
            _, end = json.JSONDecoder(parse_constant=_refuse).raw_decode(rest)
        except (ValueError, RecursionError):
            return "not JSON"
        call = _read_json(rest[:end], "parameters")
        if isinstance(call, str):
            return call
        calls.append(call)
        rest = rest[end:].lstrip(" \n;")
    return "text after a call" if calls and rest else tuple(calls)


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
    # A thought, then calls or an answer (Environment Tuning, 2510.10197, appendix F).
    "think": CallFormat(
        '<think>...</think><tool_call>[{"name": ..., "arguments": {...}}]</tool_call>\n'
        "Answer: <think>...</think><answer>...</answer>",
        _write_thought,
        _read_thought,
        "<think>All is done.</think><answer>{}</answer>",
    ),
    # Llama 3.1's own.
    "llama": CallFormat('{"name": ..., "parameters": {...}}', _write_bare, _read_bare),
    # ToolACE's, watt-tool's and BFCL's: a third of the tokens. A message that begins with "[" is calls and nothing else.
    "python": CallFormat("[tool(argument=value)]", _write_python, _read_python),
}
