"""What an environment has to pass before it is used. A gate is a reason to reject it, or "" where there is none."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Mapping
from typing import cast

from envs.answers import holds, pieces, tells
from envs.construct.records import Built, SubQuestion, name_of
from envs.sandbox import Answer, Sandbox
from envs.truth import canonical
from envs.types import Json, ToolCall

RANDOM_CALLS = 4  # of each tool
WRONG = "zzqx"  # is no value of any world


def objection(built: Built, sandbox: Sandbox) -> str:
    """The first gate that it does not pass, and why; empty where it passes all."""
    return next((reason for gate in (_gold, _empty, _dump, _random, _blind) if (reason := gate(built, sandbox))), "")


def _gold(built: Built, sandbox: Sandbox) -> str:
    """The reference calls, made again, give the same and answer every sub-question."""
    for sub, call in _pairs(built):
        given = _run(built, call, sandbox)
        if given.error or canonical(given.result) != canonical(built.results[sub.id]):
            return f"gold: sub-question {sub.id} is given {given.error or canonical(given.result)} at a second run"
        if not holds(sub.answer, given.result):
            return f"gold: the call of sub-question {sub.id} does not give its answer"
    return ""


def _empty(built: Built, sandbox: Sandbox) -> str:
    """Who calls nothing knows nothing: no answer stands in what is told from the start."""
    shown = [built.toolset.scenario.question.text, *(canonical(dict(tool)) for tool in built.toolset.tools)]
    for example in built.examples:
        shown.append(canonical([example.question, [dict(call.arguments) for call in example.calls], list(example.results)]))
    text = "\n".join(shown).lower().replace(",", "")
    for sub in built.toolset.scenario.subs:
        if all(tells(piece, text) for piece in pieces(sub.answer)):
            return f"empty agent: the answer to sub-question {sub.id} stands in what the agent is told"
    return ""


def _dump(built: Built, sandbox: Sandbox) -> str:
    """A tool that tells all that any tool knows answers nothing."""
    dump: list[Json] = []
    for code in built.codes.values():
        constants = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
        dump += [str(value) for value in constants]
    for sub in built.toolset.scenario.subs:
        if holds(sub.answer, dump) or holds(sub.answer, "\n".join(built.codes.values())):
            return f"dump: all that the tools know is so little that it answers sub-question {sub.id}"
    return ""


def _random(built: Built, sandbox: Sandbox) -> str:
    """Calls with arguments drawn by type alone answer nothing."""
    rng = random.Random(built.toolset.scenario.question.id)
    for tool in built.toolset.tools:
        for _ in range(RANDOM_CALLS):
            call = ToolCall(name_of(tool), _drawn(tool, rng))
            if found := _answered(built, _run(built, call, sandbox)):
                return f"random agent: {call.name} with {canonical(dict(call.arguments))} answers sub-question {found}"
    return ""


def _blind(built: Built, sandbox: Sandbox) -> str:
    """Without one of its arguments, or with another value for it, a reference call no longer gives its answer."""
    for sub, call in _pairs(built):
        parameters = cast(dict[str, Json], _document(built, call.name)["parameters"])
        required = cast(list[str], parameters.get("required", [])) or list(call.arguments)
        weaker = [{name: value for name, value in call.arguments.items() if name != left} for left in required]
        weaker += [{**call.arguments, name: _other(call.arguments[name])} for name in required if name in call.arguments]
        for arguments in (*weaker, {}):
            given = _run(built, ToolCall(call.name, arguments), sandbox)
            if not given.error and holds(sub.answer, given.result):
                return f"blind: {call.name} answers sub-question {sub.id} with {canonical(arguments)}"
    return ""


def _pairs(built: Built) -> Iterator[tuple[SubQuestion, ToolCall]]:
    return ((sub, built.toolset.calls[sub.id]) for sub in built.toolset.scenario.subs)


def _run(built: Built, call: ToolCall, sandbox: Sandbox) -> Answer:
    return sandbox.call(built.codes[call.name], call.name, call.arguments)


def _answered(built: Built, given: Answer) -> str:
    subs = built.toolset.scenario.subs
    return "" if given.error else next((sub.id for sub in subs if holds(sub.answer, given.result)), "")


def _document(built: Built, name: str) -> Mapping[str, Json]:
    return next(tool for tool in built.toolset.tools if name_of(tool) == name)


def _drawn(tool: Mapping[str, Json], rng: random.Random) -> dict[str, Json]:
    properties = cast(dict[str, dict[str, Json]], cast(dict[str, Json], tool["parameters"]).get("properties", {}))
    return {name: _any(schema, rng) for name, schema in properties.items()}


def _any(schema: Mapping[str, Json], rng: random.Random) -> Json:
    if choices := schema.get("enum"):
        return rng.choice(cast(list[Json], choices))
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "integer":
            return rng.randrange(100)
        case "number":
            return rng.randrange(1000) / 10
        case "boolean":
            return rng.random() < 0.5
        case "array":
            items = schema.get("items")
            return [_any(items if isinstance(items, dict) else {}, rng)]
        case "object":
            return {}
        case _:
            return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6))


def _other(value: Json) -> Json:
    """A value of the same type that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 7919
    if isinstance(value, list):
        return [_other(item) for item in value]
    return {} if isinstance(value, dict) else WRONG
