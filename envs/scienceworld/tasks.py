"""The package's 30 tasks in their variations, split as the package splits them, and its gold paths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import cast

from envs.scienceworld.pool import finder
from envs.truth import Reference
from envs.types import Json, Message, Task, ToolCall

SPLITS = ("train", "validation", "test")
# Each task's number of variations per split, which lie one after the other. To ask the package takes a machine, and a
# test compares.
VARIATIONS: dict[str, list[int]] = json.loads(Path(__file__).with_name("variations.json").read_text())
LEVELS = tuple(VARIATIONS)
WIRED = ("power-component", "conductivity")  # in the names of the tasks that have wires under the "easy" preset
WIRES = ("connect OBJ to OBJ", "disconnect OBJ")
ACTIONS = (
    "look around", "inventory", "task", "open OBJ", "close OBJ", "go OBJ", "teleport OBJ", "look at OBJ", "look in OBJ",
    "read OBJ", "pick up OBJ", "put down OBJ", "move OBJ to OBJ", "pour OBJ in OBJ", "dunk OBJ in OBJ", "mix OBJ",
    "use OBJ on OBJ", "activate OBJ", "deactivate OBJ", "focus on OBJ", "eat OBJ", "flush OBJ", "wait", "wait1", "reset task",
)  # fmt: skip
SYSTEM = """You do an experiment in a building, with one action at a time, until it is done. Each action is a call of act.
The actions, with the name of a thing or a room for each OBJ: {actions}.
Names are those that you read, such as "door to kitchen" or "orange in inventory"; "objects" lists those at hand.
Where several things could be meant, you are asked for a number: act again with that number alone.
Focus on a thing only where the task says so: to focus on a wrong one ends the task in failure.
"wait" lets ten moments pass, "wait1" one."""
TOOL: dict[str, Json] = {
    "type": "function",
    "function": {
        "name": "act",
        "description": "Do one action and read what comes of it.",
        "parameters": {
            "type": "object",
            "properties": {"action": {"type": "string", "description": "such as: open door to kitchen"}},
            "required": ["action"],
        },
    },
}


@cache
def taskset(split: str, level: str) -> Sequence[Task]:
    """A task's variations. What it asks for is said where the episode opens: only a loaded world knows it."""
    if level not in VARIATIONS:
        raise ValueError(f"scienceworld has no level {level!r}; there are: {', '.join(LEVELS)}")
    if split not in SPLITS:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(SPLITS)}")
    at, sizes = SPLITS.index(split), VARIATIONS[level]
    before = sum(sizes[:at])
    return tuple(_task(level, variation) for variation in range(before, before + sizes[at]))


def oracle(task: Task) -> Sequence[Message]:
    """The package's gold path, up to the action that completes the task."""
    actions = _gold(task.level, cast(int, task.payload["variation"]))
    return [Message("assistant", "", (ToolCall("act", {"action": action}),)) for action in actions]


@cache
def _gold(name: str, variation: int) -> Sequence[str]:
    return finder().gold(name, variation)


def _task(level: str, variation: int) -> Task:
    wires = WIRES if any(name in level for name in WIRED) else ()
    system = Message("system", SYSTEM.format(actions=", ".join((*ACTIONS, *wires))))
    truth = Reference((), (), {"score": 1.0}, needs_call=True)
    id = f"scienceworld/{level}/{variation}"
    return Task(id, "scienceworld", level, (system,), (TOOL,), {"variation": variation}, (truth.as_json(),))
