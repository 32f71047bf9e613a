"""What a run reports about itself, and metrics.jsonl, where it is kept and read again."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envs.types import Json

FILE = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimiser step. `step` counts from 1; the keys of `metrics` are "folder/name"."""

    step: int
    num_steps: int
    version: int
    stage: str
    stage_reason: str
    seconds: float
    metrics: Mapping[str, float]


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share seen in `count` trials."""
    z2 = 1.96**2 / count
    middle = (share + z2 / 2) / (1 + z2)
    half = 1.96 * math.sqrt(share * (1 - share) / count + z2 / count / 4) / (1 + z2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True, slots=True)
class LevelResult:
    """One level's evaluation: share of tasks solved, mean reward, how many tasks, mean Solve-F1."""

    success: float
    reward: float
    num_tasks: int
    solve_f1: float = 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Of the success, Wilson's at 95 %."""
        return wilson(self.success, self.num_tasks)


@dataclass(frozen=True, slots=True)
class Validation:
    """An evaluation after `step` optimiser steps; 0 is before training."""

    step: int
    stage: str
    levels: Mapping[str, LevelResult]


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line, with the last step that was done by then."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class History:
    """A run's past, each step once and in order. `num_unread` counts lines that could not be read."""

    steps: tuple[StepReport, ...] = ()
    validations: tuple[Validation, ...] = ()
    notes: tuple[Note, ...] = ()
    num_unread: int = 0


class MetricsFile:
    """The sink that appends to metrics.jsonl: one flushed line of strict JSON per event, NaN and infinities as null."""

    def __init__(self, folder: Path, *, resumed_from: int) -> None:
        """Drops the steps after `resumed_from`, since a resumed run repeats them; notes stay."""
        path = folder / FILE
        if path.exists():
            kept = [line for line in _lines(path) if _survives(line, resumed_from)]
            draft = path.with_suffix(".tmp")
            draft.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            os.replace(draft, path)
        self.file = path.open("a", encoding="utf-8")
        self.last_step = resumed_from

    def step(self, report: StepReport) -> None:
        self.last_step = report.step
        metrics: dict[str, Json] = {key: _finite(value) for key, value in report.metrics.items()}
        body: dict[str, Json] = {"num_steps": report.num_steps, "version": report.version, "stage": report.stage}
        body |= {"stage_reason": report.stage_reason, "seconds": _finite(report.seconds), "metrics": metrics}
        self._write("step", report.step, body)

    def validation(self, report: Validation) -> None:
        levels: dict[str, Json] = {
            level: {
                "success": _finite(it.success),
                "reward": _finite(it.reward),
                "num_tasks": it.num_tasks,
                "solve_f1": _finite(it.solve_f1),
            }
            for level, it in report.levels.items()
        }
        self._write("validation", report.step, {"stage": report.stage, "levels": levels})

    def note(self, text: str) -> None:
        self._write("note", self.last_step, {"text": text})

    def close(self) -> None:
        self.file.close()

    def _write(self, kind: str, step: int, body: dict[str, Json]) -> None:
        self.file.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3)} | body) + "\n")
        self.file.flush()


def read_history(folder: Path) -> History:
    """The run's history from its metrics.jsonl, last line per step; empty where there is no file."""
    path = folder / FILE
    found: list[StepReport | Validation | Note] = []
    num_unread = 0
    for line in _lines(path) if path.exists() else ():
        record = _parse(line)
        if record is None:
            num_unread += 1
        else:
            found.append(record)
    steps = {it.step: it for it in found if isinstance(it, StepReport)}
    validations = {it.step: it for it in found if isinstance(it, Validation)}
    return History(
        tuple(steps[step] for step in sorted(steps)),
        tuple(validations[step] for step in sorted(validations)),
        tuple(it for it in found if isinstance(it, Note)),
        num_unread,
    )


def _lines(path: Path) -> list[str]:
    # Not splitlines: it would also cut at U+2028 and its like.
    return [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line]


def _survives(line: str, resumed_from: int) -> bool:
    record = _parse(line)
    return record is not None and (isinstance(record, Note) or record.step <= resumed_from)


def _parse(line: str) -> StepReport | Validation | Note | None:
    try:
        row = json.loads(line)
        match row["kind"]:
            case "step":
                metrics = {str(key): _number(value) for key, value in row["metrics"].items()}
                counts = (int(row["step"]), int(row["num_steps"]), int(row["version"]))
                words = (str(row["stage"]), str(row["stage_reason"]))
                return StepReport(*counts, *words, seconds=_number(row["seconds"]), metrics=metrics)
            case "validation":
                levels = {str(level): _level(result) for level, result in row["levels"].items()}
                return Validation(int(row["step"]), str(row["stage"]), levels)
            case "note":
                return Note(int(row["step"]), str(row["text"]))
            case _:
                return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _level(row: Mapping[str, float | None]) -> LevelResult:
    return LevelResult(_number(row["success"]), _number(row["reward"]), int(row["num_tasks"] or 0), _number(row.get("solve_f1")))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
