"""phases.jsonl: what each part did and when, for a timeline; `tiltyard timeline` turns it into a Chrome trace."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

FILE = "phases.jsonl"


@dataclass(frozen=True, slots=True)
class Phase:
    """`part` did `what` from `begun` on, in seconds since the epoch, for `seconds`; `step` steps were done then."""

    part: str
    what: str
    begun: float
    seconds: float
    step: int
    detail: str = ""


class PhaseFile:
    """Appends to a run's phases.jsonl. A resumed run goes on in the same file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / FILE).open("a", encoding="utf-8")
        self._epoch = time.time() - time.monotonic()

    def add(self, part: str, what: str, *, begun: float, step: int, detail: str = "") -> float:
        """Note what ends now and began at `begun` on the monotonic clock; its seconds."""
        seconds = time.monotonic() - begun
        phase = Phase(part, what, round(self._epoch + begun, 6), round(seconds, 6), step, detail)
        self._file.write(json.dumps(asdict(phase)) + "\n")
        return seconds

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> tuple[Phase, ...]:
    """A run's phases in their order; a last line cut by a kill is left out."""
    return tuple(phase for line in (folder / FILE).read_text(encoding="utf-8").split("\n") for phase in _parse(line))


def _parse(line: str) -> Iterator[Phase]:
    try:
        row = json.loads(line)
        yield Phase(
            str(row["part"]), str(row["what"]), float(row["begun"]), float(row["seconds"]), int(row["step"]), row["detail"]
        )
    except (ValueError, KeyError, TypeError):
        return


def chrome_trace(phases: Sequence[Phase]) -> dict[str, object]:
    """Trace events as chrome://tracing and Perfetto read them, times in microseconds; what overlaps gets rows of its own."""
    zero = min((phase.begun for phase in phases), default=0.0)
    rows: dict[tuple[str, int], float] = {}  # until when each row is taken
    events: list[dict[str, object]] = []
    for phase in sorted(phases, key=lambda it: (it.begun, -it.seconds)):
        number = next(n for n in range(len(phases)) if rows.get((phase.part, n), zero) <= phase.begun)
        rows[phase.part, number] = phase.begun + phase.seconds
        place = {"pid": 1, "tid": f"{phase.part} {number}" if number else phase.part}
        times = {"ts": round((phase.begun - zero) * 1e6), "dur": round(phase.seconds * 1e6)}
        events.append({"name": phase.what, "ph": "X", **place, **times, "args": {"step": phase.step, "detail": phase.detail}})
    names = list(dict.fromkeys(str(event["tid"]) for event in events))
    for event in events:
        event["tid"] = names.index(str(event["tid"]))
    titles = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}} for number, name in enumerate(names)
    ]
    return {"displayTimeUnit": "ms", "traceEvents": [*titles, *events]}
