"""What the stages share: asking an author, refusing a reply with its reason, and the checks of documents and calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from envs.answers import leaves_of, pieces, tells
from envs.author import Author, Unreadable, ask_json
from envs.construct.records import Scenario, SubQuestion, Toolset, name_of
from envs.endpoint import NoReply
from envs.types import Json, ToolCall

TRIES = 3
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
Ask = Callable[[str, Mapping[str, Json]], Mapping[str, Json]]  # the stage's instructions and its request -> the reply
Before = TypeVar("Before")
After = TypeVar("After")


class Refused(ValueError):
    """A reply that fails the stage's checks: the author is told this reason and tries again."""


class GivenUp(ValueError):
    """No reply passed."""


def attempt(stage: Callable[[Before, Ask], After], record: Before, author: Author) -> After:
    """The stage's next record. Raises GivenUp after TRIES; EndpointError where the author cannot be asked at all."""
    reason = ""
    for _ in range(TRIES):

        def ask(system: str, request: Mapping[str, Json], objection: str = reason) -> Mapping[str, Json]:
            told = {**request, "objection to your last reply": objection} if objection else request
            return ask_json(author, system, json.dumps(told, ensure_ascii=False))

        try:
            return stage(record, ask)
        except (Refused, Unreadable, NoReply) as error:
            reason = str(error)
    raise GivenUp(f"{TRIES} replies refused, the last since {reason}")


def told(scenario: Scenario) -> dict[str, Json]:
    """The part of a request that says what is to be answered."""
    question = scenario.question
    return {
        "question": {"id": question.id, "text": question.text},
        "sub_questions": [
            {"id": sub.id, "text": sub.text, "answer": sub.answer, "needs": list(sub.needs)} for sub in scenario.subs
        ],
    }


def shown(toolset: Toolset) -> dict[str, Json]:
    """The part of a request that says which tools there are so far."""
    calls: dict[str, Json] = {id: {"name": call.name, "arguments": dict(call.arguments)} for id, call in toolset.calls.items()}
    return {**told(toolset.scenario), "tools": [dict(tool) for tool in toolset.tools], "calls": calls}


def read_toolset(scenario: Scenario, reply: Mapping[str, Json]) -> Toolset:
    """The reply's `tools` and `calls`, checked: documents, calls that fit them, no value told. Raises Refused."""
    tools = read_tools(_list(reply, "tools"))
    calls = _object(reply, "calls")
    toolset = Toolset(scenario, tools, {sub.id: _call(sub, calls.get(sub.id)) for sub in scenario.subs})
    check(toolset)
    return toolset


def read_tools(values: Sequence[Json]) -> tuple[Mapping[str, Json], ...]:
    """Functions with a JSON schema each, bare or as OpenAI's API wraps them. Raises Refused."""
    tools = tuple(map(_tool, values))
    names = [name_of(tool) for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refused(f"two tools are called {twice[0]!r}")
    return tools


def check(toolset: Toolset) -> None:
    """Raises Refused where a call does not fit its tool's document, or a value is told."""
    by_name = {name_of(tool): tool for tool in toolset.tools}
    for sub in toolset.scenario.subs:
        call = toolset.calls[sub.id]
        if call.name not in by_name:
            raise Refused(f"the call of sub-question {sub.id} is of {call.name!r}, which is no tool")
        if objection := misfit(by_name[call.name], call.arguments):
            raise Refused(f"the call of sub-question {sub.id} does not fit {call.name!r}: {objection}")
        _check_source(toolset, sub, call)
    for tool in toolset.tools:
        _check_silence(toolset, tool)


def misfit(tool: Mapping[str, Json], arguments: Mapping[str, Json]) -> str:
    """Why the arguments are not those of the tool's document; empty where they are."""
    schema = {"additionalProperties": False, **cast(dict[str, Json], tool["parameters"])}
    error = best_match(Draft202012Validator(schema).iter_errors(dict(arguments)))
    return "" if error is None else f"{'.'.join(map(str, error.path)) or 'arguments'}: {error.message}"


def _tool(value: Json) -> Mapping[str, Json]:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not NAME.fullmatch(str(value["name"])):
        raise Refused("a tool has no name of letters, digits and underscores")
    name, parameters = value["name"], value.get("parameters")
    if not isinstance(value.get("description"), str) or not value["description"]:
        raise Refused(f"tool {name!r} has no description")
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        raise Refused(f"the parameters of tool {name!r} are no JSON schema of an object")
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        raise Refused(f"the parameters of tool {name!r} are no JSON schema: {error.message}") from error
    properties = parameters.get("properties", {})
    if not isinstance(properties, dict) or not all(isinstance(one, dict) and "type" in one for one in properties.values()):
        raise Refused(f"a parameter of tool {name!r} has no type")
    if missing := sorted(set(cast(list[str], parameters.get("required", []))) - properties.keys()):
        raise Refused(f"tool {name!r} requires {missing[0]!r}, which is none of its parameters")
    return {"name": name, "description": value["description"], "parameters": parameters}


def _call(sub: SubQuestion, value: Json) -> ToolCall:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not isinstance(value.get("arguments"), dict):
        raise Refused(f"sub-question {sub.id} has no call with a name and arguments")
    return ToolCall(str(value["name"]), cast(dict[str, Json], value["arguments"]))


def _check_source(toolset: Toolset, sub: SubQuestion, call: ToolCall) -> None:
    """What the call says must be known by then: from the question, an answer that it needs, or the document's choices."""
    subs = {one.id: one for one in toolset.scenario.subs}
    document = next(tool for tool in toolset.tools if name_of(tool) == call.name)
    known = "\n".join([toolset.scenario.question.text, *(subs[id].answer for id in sub.needs), *_choices(document)]).lower()
    for value in leaves_of(call.arguments):
        if (
            not isinstance(value, bool)
            and value is not None
            and not all(tells(p, known.replace(",", "")) for p in pieces(str(value)))
        ):
            raise Refused(f"the call of sub-question {sub.id} says {value!r}, which neither the question nor what it needs tells")


def _check_silence(toolset: Toolset, tool: Mapping[str, Json]) -> None:
    """No document tells an answer, nor a value that a call has to find."""
    text = json.dumps(tool, ensure_ascii=False).lower().replace(",", "")
    found = [sub.answer for sub in toolset.scenario.subs]
    for call in toolset.calls.values():
        document = next(one for one in toolset.tools if name_of(one) == call.name)
        choices = set(_choices(document))
        found += [value for value in map(str, leaves_of(call.arguments)) if value not in choices and len(value) > 2]
    own = {choice.lower() for choice in _choices(tool)}
    for value in found:
        if value.lower() not in own and all(tells(piece, text) for piece in pieces(value)):
            raise Refused(f"the document of {name_of(tool)!r} tells the value {value!r}")


def _choices(document: Mapping[str, Json]) -> Iterator[str]:
    """The values that a document lists, and its defaults."""
    for schema in cast(dict[str, dict[str, Json]], cast(dict[str, Json], document["parameters"]).get("properties", {})).values():
        yield from map(str, cast(list[Json], schema.get("enum", [])))
        if "default" in schema:
            yield str(schema["default"])


def _list(reply: Mapping[str, Json], key: str) -> Sequence[Json]:
    value = reply.get(key)
    if not isinstance(value, list) or not value:
        raise Refused(f"the reply has no list {key!r}")
    return value


def _object(reply: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    value = reply.get(key)
    if not isinstance(value, dict):
        raise Refused(f"the reply has no object {key!r}")
    return value
