"""The Environment protocol, and the one dict that names the environments and their tasksets."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from envs.call_text import read, tool_call
from envs.types import Json, Message, Observation, Task, ToolCall


class Environment(Protocol):
    """One episode's world. An author reads and writes messages and never sees a token."""

    def reset(self, task: Task) -> Observation:
        """Make the world afresh; the observation's messages open the conversation."""
        ...

    def step(self, message: Message) -> Observation:
        """Answer the assistant's message: run its calls, or end the user turn where it has none."""
        ...

    def close(self) -> None: ...


def one_by_one(calls: Sequence[ToolCall]) -> list[Message]:
    return [Message("assistant", "", (call,)) for call in calls]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name in a config stands for. `taskset(split, level)` gives the tasks of "train", "validation" or "test"."""

    make: Callable[[], Environment]
    taskset: Callable[[str, str], Sequence[Task]]
    levels: tuple[str, ...]
    rules: str  # the augmentation rules, a YAML file beside the environment; empty where there are none
    oracle: Callable[[Task], Sequence[Message]]  # the reference calls as assistant messages, closing answers included
    recorded: Callable[[Task, str], ToolCall] = lambda task, text: tool_call(read(text))  # a call written as Python
    messages: Callable[[Sequence[ToolCall]], Sequence[Message]] = one_by_one  # recorded calls of one user turn, as messages
    prelude: Callable[[Task], Sequence[Task]] | None = None  # what has to be played before a task, in its order,
    carry: Callable[[Task, Json], Task] | None = None  # and how a task takes over the state that the one before ended in
    ready: Callable[[], object] = lambda: None  # raises ValueError where its data, or what it runs on, is not at hand
    about: Callable[[], str] = lambda: ""  # which data there is, where that can be one or another
    # Scores a recorded line in the environment's own form, out of that file; gives None where the line has another.
    score: Callable[[Mapping[str, Json], Path], dict[str, Json] | None] | None = None
    is_quick: bool = False  # answers in well under a millisecond, so that a thread of its own would only cost time


# A module with an ENTRY each, imported when it is asked for: what one environment needs is no burden on the others.
ENVIRONMENTS = {
    "bfcl": "envs.bfcl",
    "bfcl_memory": "envs.bfcl_memory",
    "bfcl_web": "envs.bfcl_web",
    "scienceworld": "envs.scienceworld",
    "shop": "envs.shop",
    "tau2": "envs.tau2",
    "tau2_users": "envs.tau2.users",
    "webshop": "envs.webshop",
}
# With an `entry(folder)`: said as NAME:FOLDER.
FROM_FOLDER = {"acebench": "envs.acebench", "constructed": "envs.constructed", "webshop": "envs.webshop"}


@cache
def environment(name: str) -> Entry:
    """The entry of that name, or a ValueError that says which names there are, or what has to be installed."""
    first, _, folder = name.partition(":")
    if name not in ENVIRONMENTS and not (first in FROM_FOLDER and folder):
        there = [*ENVIRONMENTS, *(f"{one}:FOLDER" for one in FROM_FOLDER)]
        raise ValueError(f"no environment is called {name!r}; there are: {', '.join(sorted(there))}")
    try:
        if folder:
            return importlib.import_module(FROM_FOLDER[first]).entry(folder)
        return importlib.import_module(ENVIRONMENTS[name]).ENTRY
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name} needs the package {error.name}, which is not installed; the locks in deploy/locks have it"
        ) from error
