"""ACEBench's agent scenarios as tasks, which are all for testing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast

from envs.acebench.data import LEVELS, POLICIES, REMEDY, Scenario, policies, scenarios
from envs.acebench.world import api
from envs.truth import Reference, references
from envs.types import Json, Message, Task, ToolCall

SPLITS = ("train", "validation", "test")
RULES = {"Travel": "TRAVEL_PROMPT_EN", "BaseApi": "BASE_PROMPT_EN"}  # by a class that the task has
STEPS = """You fulfil a request with tools, alone: nobody answers you. Call one tool after the other and look at what each gives.
When all of it is done, say so in a sentence without any call."""
TURNS = """You help a user with tools. Call one tool after the other and look at what each gives. Where you need to know
something, ask the user, without any call; never make up what the user did not say. When all of it is done, tell the user.

{rules}"""


@cache
def taskset(folder: str, split: str, level: str) -> Sequence[Task]:
    """The level's tasks. Raises ValueError where the folder's data or classes are not at hand."""
    if split not in SPLITS:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(SPLITS)}")
    if level not in LEVELS:
        raise ValueError(f"acebench has no level {level!r}; there are: {', '.join(LEVELS)}")
    return tuple(_task(folder, level, scenario) for scenario in scenarios(folder, level)) if split == "test" else ()


def oracle(task: Task) -> Sequence[Message]:
    """The milestones of the first path, as far as they are calls, and a closing answer."""
    (reference,) = references(task)
    return [*(Message("assistant", "", (call,)) for call in reference.calls), Message("assistant", "Done.")]


def _task(folder: str, level: str, scenario: Scenario) -> Task:
    for name in scenario.classes:
        api(folder, level, name)
    has_user = level == "multi_turn"
    system = TURNS.format(rules=_rules(folder, scenario)) if has_user else STEPS
    asked = () if has_user else (Message("user", scenario.text),)
    paths = [[[_call(call) for call in milestone] for milestone in path] for path in scenario.paths]
    payload: dict[str, Json] = {
        "folder": folder, "classes": list[Json](scenario.classes), "config": dict(scenario.config),
        "instruction": scenario.text if has_user else "", "answer": cast(Json, list(scenario.answer)),
        "paths": cast(Json, paths),
    }  # fmt: skip
    calls = tuple(call for milestone in scenario.paths[0] for call in milestone)
    truth = Reference(calls, (), {"right": True, "score": 1.0}).as_json()
    messages = (Message("system", system), *asked)
    id, env = f"acebench/{level}/{scenario.number}", f"acebench:{folder}"
    return Task(id, env, level, messages, scenario.tools, payload, (truth,))


def _call(call: ToolCall) -> Json:
    return {"name": call.name, "arguments": dict(call.arguments)}


def _rules(folder: str, scenario: Scenario) -> str:
    """What the benchmark tells an agent of its own where a user is played."""
    names = [text for name, text in RULES.items() if name in scenario.classes]
    if missing := [name for name in names if name not in policies(folder)]:
        raise ValueError(f"{folder}/{POLICIES}: has no text {missing[0]}; {REMEDY}")
    # What follows tells how to write a call, which here is for `actors.calls` to say.
    return "\n".join(policies(folder)[name].partition("Function Calls:")[0].strip() for name in names)
