"""BFCL's multi-turn scenarios as tasks, split as Environment Tuning (2510.10197) splits them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import cast

from envs.bfcl.data import CATEGORIES, Scenario, scenarios, tools
from envs.bfcl.world import CLASSES, World, functions
from envs.call_text import read, tool_call
from envs.truth import Reference, references
from envs.types import Json, Message, Task, ToolCall

LEVELS = CATEGORIES
MAX_MESSAGES = 20  # the assistant's, in one user turn: the benchmark's own limit
SPLIT: Mapping[str, Sequence[int]] = json.loads((Path(__file__).parent / "split.json").read_text())
SYSTEM = (
    "You fulfil a user's requests with tools. Write the calls that are due, look at their results, and call again until the "
    "request is fulfilled; then say so in a sentence without any call. Where a tool or a value that you need is missing, ask "
    "for it instead of calling."
)
ADDED = "There are more tools now:\n{tools}\nTry again."


@cache
def taskset(split: str, level: str) -> Sequence[Task]:
    """The tasks of a split and category. The same numbers are in every category, so that no scenario is in two splits."""
    if split not in SPLIT:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(SPLIT)}")
    numbers = set(SPLIT[split])
    return tuple(_task(scenario, level) for scenario in scenarios(level) if scenario.number in numbers)


def oracle(task: Task) -> Sequence[Message]:
    """The reference calls as assistant messages, and an answer after each user turn."""
    return [message for reference in references(task) for message in (*messages(reference.calls), Message("assistant", "Done."))]


def messages(calls: Sequence[ToolCall]) -> list[Message]:
    """One user turn's calls, one a message, or as few as leave room for an answer."""
    share = -(-len(calls) // (MAX_MESSAGES - 1)) or 1
    return [Message("assistant", "", tuple(calls[at : at + share])) for at in range(0, len(calls), share)]


def recorded(task: Task, text: str) -> ToolCall:
    """A call as BFCL's files write it; a positional argument that no tool takes is kept, to be refused. Raises NotACall."""
    call = read(text)
    if not call.args:
        return tool_call(call)
    owners = [parameters(name) for name in cast(list[str], task.payload["classes"])]
    known = next((methods[call.name] for methods in reversed(owners) if call.name in methods), ())
    return tool_call(call, [*known, *(f"argument {number}" for number in range(len(call.args)))])


@cache
def parameters(name: str) -> dict[str, tuple[str, ...]]:
    """The parameters of each of a class's functions."""
    return {method: tuple(signature(function).parameters)[1:] for method, function in functions(CLASSES[name]).items()}


def make_world(task: Task) -> World:
    payload = task.payload
    config = cast(dict[str, object], payload["config"])
    return World.open(cast(list[str], payload["classes"]), config, is_long=payload["is_long"] is True)


def _task(scenario: Scenario, level: str) -> Task:
    held = {name for names in scenario.added.values() for name in names}
    documents = [document for name in scenario.classes for document in tools(name)]
    given = [document for document in documents if _name(document) not in held]
    requests = [_request(scenario, turn, documents) for turn in range(len(scenario.requests))]
    payload: dict[str, Json] = {
        "classes": list[Json](scenario.classes), "config": dict(scenario.config), "is_long": level == "long_context",
        "requests": list[Json](requests),
    }  # fmt: skip
    opening = (Message("system", SYSTEM), Message("user", requests[0]))
    bare = Task(f"bfcl/{level}/{scenario.number}", "bfcl", level, opening, tuple(given), payload, ())
    return replace(bare, truth=_truth(bare, scenario))


def _request(scenario: Scenario, turn: int, documents: Sequence[Mapping[str, Json]]) -> str:
    if turn not in scenario.added:
        return "\n".join(scenario.requests[turn])
    new = [document for document in documents if _name(document) in scenario.added[turn]]
    return ADDED.format(tools="\n".join(json.dumps(document["function"]) for document in new))


def _truth(task: Task, scenario: Scenario) -> tuple[Mapping[str, Json], ...]:
    """What the reference calls give, played through a world of their own."""
    world, found = make_world(task), []
    for texts in scenario.truth:
        calls = tuple(recorded(task, text) for text in texts)
        results = tuple(world.run(call) for call in calls)
        found.append(Reference(calls, results, world.state(), needs_call=bool(calls), forbids_calls=not calls).as_json())
    return tuple(found)


def _name(document: Mapping[str, Json]) -> str:
    return str(cast(dict[str, Json], document["function"])["name"])
