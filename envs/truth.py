"""A task's truth, typed: what the reference calls of each user turn give. Not for environments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from envs.types import Json, Task, ToolCall

_ENCODER = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True, slots=True)
class SubAnswer:
    """What a call of this tool has to bring to light."""

    tool: str
    answer: str


@dataclass(frozen=True, slots=True)
class Reference:
    """One user turn's reference calls, their results in the same order, and the state after them.

    `needs_call` where knowing the results is not enough: some call must be made in this very turn. `forbids_calls` where
    nothing can be done yet, so that asking is right and any call is not. With `answers` these have to be found, by whatever
    calls, instead of the results; `answer` is the one to say at the end, where it is known.
    """

    calls: tuple[ToolCall, ...]
    results: tuple[Json, ...]
    state: Json
    needs_call: bool = False
    forbids_calls: bool = False
    answers: tuple[SubAnswer, ...] = ()
    answer: str = ""

    def as_json(self) -> dict[str, Json]:
        calls: list[Json] = [{"name": call.name, "arguments": dict(call.arguments)} for call in self.calls]
        flags: dict[str, Json] = {"needs_call": self.needs_call, "forbids_calls": self.forbids_calls}
        answers: list[Json] = [{"tool": one.tool, "answer": one.answer} for one in self.answers]
        found: dict[str, Json] = {"answers": answers, "answer": self.answer} if answers else {}
        return {"calls": calls, "results": list(self.results), "state": self.state, **flags, **found}


def references(task: Task) -> tuple[Reference, ...]:
    """The task's truth, one entry per user turn."""
    return tuple(_read(entry) for entry in task.truth)


def canonical(value: Json) -> str:
    """One text per JSON value, so that values can be compared and counted; 1 and true differ."""
    return _ENCODER.encode(value)


def _read(entry: Mapping[str, Json]) -> Reference:
    calls = cast(list[dict[str, Json]], entry["calls"])
    return Reference(
        tuple(ToolCall(str(call["name"]), cast(dict[str, Json], call["arguments"])) for call in calls),
        tuple(cast(list[Json], entry["results"])),
        entry["state"],
        entry.get("needs_call") is True,
        entry.get("forbids_calls") is True,
        tuple(SubAnswer(one["tool"], one["answer"]) for one in cast(list[dict[str, str]], entry.get("answers", []))),
        str(entry.get("answer", "")),
    )
