"""What the stages hand on: Question -> Scenario -> Toolset (three times) -> Built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envs.types import Json, ToolCall

KINDS = ("single_hop", "parallel_single_hop", "multi_hop", "parallel_multi_hop")


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks, and the answer. `kind` where one of KINDS is wanted, `tools` where these documents are to be kept to."""

    id: str
    text: str
    answer: str
    kind: str = ""
    tools: tuple[Mapping[str, Json], ...] = ()


@dataclass(frozen=True, slots=True)
class SubQuestion:
    """`needs` are the ids of earlier ones, whose answers stand in its text as #id."""

    id: str
    text: str
    answer: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question taken apart."""

    question: Question
    subs: tuple[SubQuestion, ...]

    @property
    def kind(self) -> str:
        return kind_of(self.subs)


@dataclass(frozen=True, slots=True)
class Toolset:
    """The documents of tools, as functions with a JSON schema, and by sub-question's id the call that answers it."""

    scenario: Scenario
    tools: tuple[Mapping[str, Json], ...]
    calls: Mapping[str, ToolCall]


@dataclass(frozen=True, slots=True)
class Example:
    """A question beside the task's own, and the calls that answer it, one after the other, with their results."""

    question: str
    calls: tuple[ToolCall, ...]
    results: tuple[Json, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Built:
    """The whole: by tool's name its code, by sub-question's id what its call gives."""

    toolset: Toolset
    codes: Mapping[str, str]
    results: Mapping[str, Json]
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A question given up, where and why."""

    id: str
    stage: str
    reason: str


def kind_of(subs: Sequence[SubQuestion]) -> str:
    """Which of KINDS these are: alone, side by side, a chain in which each needs the one before, or a mixture."""
    if len(subs) == 1:
        return "single_hop"
    if not any(sub.needs for sub in subs):
        return "parallel_single_hop"
    chained = all(before.id in sub.needs for before, sub in zip(subs, subs[1:], strict=False))
    return "multi_hop" if chained else "parallel_multi_hop"


def name_of(tool: Mapping[str, Json]) -> str:
    return str(tool["name"])
