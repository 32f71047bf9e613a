"""BFCL's multi-turn scenarios as tasks, split as Environment Tuning (2510.10197) splits them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from typing import cast

from envs.bfcl.data import CATEGORIES, Scenario, scenarios, tools
from envs.bfcl.world import World, functions
from envs.call_text import read
from envs.truth import references
from envs.types import Json, Message, Task

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
    """The reference calls as assistant messages, one call each where there is room, and an answer after each user turn."""
    found: list[Message] = []
    for reference in references(task):
        calls = reference.calls
        share = -(-len(calls) // (MAX_MESSAGES - 1)) or 1
        found += [Message("assistant", "", calls[at : at + share]) for at in range(0, len(calls), share)]
        found.append(Message("assistant", "Done."))
    return found


def make_world(task: Task) -> World:
    payload = task.payload
    config = cast(dict[str, object], payload["config"])
    return World(cast(list[str], payload["classes"]), config, is_long=payload["is_long"] is True)


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
    return Task(bare.id, bare.env, level, opening, bare.tools, payload, _truth(bare, scenario))


def _request(scenario: Scenario, turn: int, documents: Sequence[Mapping[str, Json]]) -> str:
    if turn not in scenario.added:
        return "\n".join(scenario.requests[turn])
    new = [document for document in documents if _name(document) in scenario.added[turn]]
    return ADDED.format(tools="\n".join(json.dumps(document["function"]) for document in new))


def _truth(task: Task, scenario: Scenario) -> tuple[Mapping[str, Json], ...]:
    """What the reference calls give, played through a world of their own."""
    world, found = make_world(task), []
    for calls in scenario.truth:
        read_calls = [read(text) for text in calls]
        results: list[Json] = [world.run(call) for call in read_calls]
        named: list[Json] = [
            {"name": call.name, "arguments": cast(Json, _named(scenario.classes, call.name, call.args) | dict(call.kwargs))}
            for call in read_calls
        ]
        found.append({"calls": named, "results": results, "state": world.state(), "needs_call": bool(calls)})
    return tuple(found)


def _named(classes: Sequence[str], name: str, args: Sequence[object]) -> dict[str, object]:
    """Positional arguments by their parameters' names."""
    function = next(functions(owner)[name] for owner in reversed(classes) if name in functions(owner))
    return dict(zip(list(signature(function).parameters)[1:], args, strict=False))


def _name(document: Mapping[str, Json]) -> str:
    return str(cast(dict[str, Json], document["function"])["name"])
