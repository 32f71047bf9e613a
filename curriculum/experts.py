"""Recorded trajectories to begin from: whose, and after how many of their actions. EEF (2504.13145)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import takewhile
from typing import cast

from envs.types import Json, Message, ToolCall


@dataclass(frozen=True, slots=True)
class Expert:
    """One recorded trajectory: its actions, what each was answered, and whether it solved its task."""

    id: str
    task_id: str
    messages: tuple[Message, ...]
    answers: tuple[tuple[Message, ...], ...]
    success: bool
    env: str = ""
    opening: tuple[Message, ...] = ()

    @property
    def digest(self) -> str:
        """Of what was said and answered."""
        return blake2b(repr((self.messages, self.answers)).encode(errors="surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Start:
    """Where a group begins; without messages at the beginning. `words` say it for the reason."""

    messages: tuple[Message, ...] = ()
    depths: tuple[int, ...] = ()
    answers: tuple[tuple[Message, ...], ...] = ()
    expert: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of each task, in the order of the file."""

    of: Mapping[str, Sequence[Expert]] = field(default_factory=dict)

    def digest(self, id: str) -> str:
        """That expert's; empty where there is none of that id."""
        return next((one.digest for experts in self.of.values() for one in experts if one.id == id), "")

    def usable(self, task_id: str, *, successful: bool, lost: Collection[str] = ()) -> list[Expert]:
        """Those of a task, but for the `lost`; only successful ones where that is asked for."""
        return [one for one in self.of.get(task_id, ()) if one.id not in lost and (one.success or not successful)]


NO_EXPERTS = Experts()


def depths(num_actions: int, num_states: int) -> tuple[int, ...]:
    """0, l, 2l, ...: the first state and at most `num_states` more at one interval, the last action left to the policy."""
    interval = max(1, -(-num_actions // (num_states + 1)))
    return tuple(takewhile(lambda depth: depth < max(num_actions, 1), (interval * n for n in range(num_states + 1))))


def states(expert: Expert, num_states: int) -> Start:
    """The simulations of EEF: from the beginning, and from states at one interval on the expert's way."""
    places = depths(len(expert.messages), num_states)
    longest = places[-1]
    words = f", from {len(places)} states on the way of expert {expert.id}"
    return Start(expert.messages[:longest], places, expert.answers[:longest], expert.id, words)


def whole(expert: Expert) -> Start:
    """The expert alone, to be imitated."""
    return Start(expert.messages, (len(expert.messages),), expert.answers, expert.id, f", expert {expert.id} itself")


def said(saved: Sequence[Mapping[str, Json]]) -> tuple[Message, ...]:
    """Messages from their JSON."""
    found: list[Message] = []
    for told in saved:
        calls = cast(list[dict[str, Json]], told["calls"])
        made = tuple(ToolCall(str(call["name"]), cast(dict[str, Json], call["arguments"])) for call in calls)
        found.append(Message(str(told["role"]), str(told["content"]), made, str(told["malformed"])))
    return tuple(found)
