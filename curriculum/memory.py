"""What a coordinator remembers: all that it takes to go on as it would have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from curriculum.experts import said
from curriculum.gate import StepFacts
from curriculum.sampler import Tally
from envs.types import Message


class Kind(StrEnum):
    STARTED = "started"
    ADVANCED = "advanced"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Record:
    """A decision about stages: taken after `step`, and `stage` is the one that it led to (or that finished)."""

    step: int
    stage: str
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Story:
    records: tuple[Record, ...]
    steps: Mapping[str, int]  # stage -> optimiser steps spent in it


@dataclass(frozen=True, slots=True)
class CurriculumStatus:
    """`tried` and `solved` count tasks; `reason` says why this stage began. `is_finished`: the last gate fired."""

    stage: str
    index: int
    step_in_stage: int
    tried: int
    solved: int
    reason: str
    is_finished: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """One observed group, in trajectories. `midway` is its level where it did not begin at the beginning, else empty.

    `way` has the first sibling's messages where the group played one message each, but for one that ended the episode.
    `lost` is the expert whose actions were answered otherwise than recorded.
    """

    id: int
    task_id: str
    tried: int
    solved: int
    midway: str = ""
    way: tuple[Message, ...] = ()
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is remembered. `drawn` (assignments per level) and `history` are the present stage's alone."""

    env: str
    seed: int
    stage: str
    next_id: int = 0
    drawn: Mapping[str, int] = field(default_factory=dict)
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    midway: Mapping[str, Tally] = field(default_factory=dict)  # level -> how groups that began midway ended
    pending: tuple[Seen, ...] = ()
    history: tuple[StepFacts, ...] = ()
    steps: Mapping[str, int] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)  # expert that did not replay -> what it was
    left: Mapping[str, int] = field(default_factory=dict)  # level -> messages left to do from where a group begins
    is_finished: bool = False
    temperature: float = 0.0  # where the stage holds an entropy by it
    ways: Mapping[str, tuple[Message, ...]] = field(default_factory=dict)  # task -> the messages by which it was last gone into


def read(state: str) -> Memory:
    """From its JSON."""
    saved = json.loads(state)
    lost = saved.get("lost")
    return Memory(
        env=saved["env"],
        seed=saved["seed"],
        stage=saved["stage"],
        next_id=saved["next_id"],
        drawn=saved["drawn"],
        tallies={task_id: Tally(**tally) for task_id, tally in saved["tallies"].items()},
        midway={level: Tally(**tally) for level, tally in saved.get("midway", {}).items()},
        pending=tuple(Seen(**{**seen, "way": said(seen.get("way", ()))}) for seen in saved["pending"]),
        history=tuple(StepFacts(**facts) for facts in saved["history"]),
        steps=saved["steps"],
        records=tuple(Record(one["step"], one["stage"], Kind(one["kind"]), one["reason"]) for one in saved["records"]),
        is_finished=saved["is_finished"],
        temperature=saved["temperature"],
        ways={task_id: said(way) for task_id, way in saved.get("ways", {}).items()},
        lost=lost if isinstance(lost, dict) else {},  # a list in older runs, whose experts get another chance
        left=saved.get("left", {}),
    )
