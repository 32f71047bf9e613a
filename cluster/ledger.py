"""The ledger: what was admitted and how each admission ended, append-only, so that the sum balances at any time."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

from envs.types import Assignment, Json

log = logging.getLogger(__name__)


class LedgerError(RuntimeError):
    """An event that contradicts the ledger: the message says which, and nothing was written."""


class End(StrEnum):
    """How an assignment ended. `FILTERED` had no signal, `STALE` was too old, `REISSUED` met a fault of the machine."""

    TRAINED = "trained"
    FILTERED = "filtered"
    STALE = "stale"
    REISSUED = "reissued"


@dataclass(frozen=True, slots=True)
class Counts:
    admitted: int
    open: int
    trained: int
    filtered: int
    stale: int
    reissued: int

    @property
    def is_balanced(self) -> bool:
        return self.admitted == self.open + self.trained + self.filtered + self.stale + self.reissued


@dataclass(frozen=True, slots=True)
class _Ended:
    end: End
    step: int | None


class Ledger:
    """JSON lines: `admitted`, `ended` and `resumed` events, each flushed as it comes: a kill tears at most the last.

    Opening an existing file replays it. History is never rewritten: a resume appends an event that voids what came
    after its checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._fates: dict[int, _Ended | None] = {}  # None: open
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._replay(path)
        self._file = path.open("a", encoding="utf-8")

    def admit(self, assignment: Assignment, version: int) -> None:
        """Open an assignment that the curriculum handed out while `version` was the newest."""
        self._append(
            {
                "event": "admitted",
                "id": assignment.id,
                "task": assignment.task.id,
                "stage": assignment.stage,
                "augmentation": assignment.augmentation,
                "reward": assignment.reward,
                "reason": assignment.reason,
                "version": version,
            }
        )

    def end(self, assignment_id: int, end: End, step: int | None = None) -> None:
        """Close an open assignment; `step` is the optimiser step that trained on it, and belongs to TRAINED."""
        self._append({"event": "ended", "id": assignment_id, "end": end.value, "step": step})

    def resume(self, step: int, *, next_id: int, still_open: Collection[int]) -> None:
        """Go on from `step`'s checkpoint: what was open then is so again, what came after it, ids from `next_id` on, is void."""
        self._append({"event": "resumed", "step": step, "next_id": next_id, "open": sorted(still_open)})

    @property
    def open_ids(self) -> tuple[int, ...]:
        return tuple(sorted(key for key, fate in self._fates.items() if fate is None))

    @property
    def counts(self) -> Counts:
        ends = Counter(fate.end if fate else None for fate in self._fates.values())
        return Counts(
            admitted=len(self._fates),
            open=ends[None],
            trained=ends[End.TRAINED],
            filtered=ends[End.FILTERED],
            stale=ends[End.STALE],
            reissued=ends[End.REISSUED],
        )

    def sync(self) -> None:
        """Make everything so far outlast a power cut; a kill alone loses nothing."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _append(self, event: Mapping[str, Json]) -> None:
        self._apply(event)
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def _apply(self, event: Mapping[str, Json]) -> None:
        match event:
            case {"event": "admitted", "id": int(key)}:
                self._admit(key)
            case {"event": "ended", "id": int(key), "end": str(end), "step": int() | None as step}:
                self._end(key, End(end), step)
            case {"event": "resumed", "step": int(step), "next_id": int(next_id)}:
                self._resume(step, next_id, cast(list[int] | None, event.get("open")))
            case _:
                raise LedgerError(f"{json.dumps(event)[:200]} is no event of a ledger")

    def _admit(self, key: int) -> None:
        if key in self._fates:
            raise LedgerError(f"assignment {key} was admitted before; ids must be unique within a run")
        self._fates[key] = None

    def _end(self, key: int, end: End, step: int | None) -> None:
        if key not in self._fates:
            raise LedgerError(f"assignment {key} cannot end as {end}: it was never admitted")
        if before := self._fates[key]:
            raise LedgerError(f"assignment {key} cannot end as {end}: it ended as {before.end} already")
        if (step is not None) != (end is End.TRAINED):
            raise LedgerError(
                f"assignment {key} ends as {end} with step {step}; {End.TRAINED} needs a step, no other end has one"
            )
        self._fates[key] = _Ended(end, step)

    def _resume(self, step: int, next_id: int, still_open: Collection[int] | None) -> None:
        """Files of older versions do not tell what was open: there it is what was trained on later, or is open now."""
        for key, fate in list(self._fates.items()):
            is_later = fate is None or (fate.step is not None and fate.step > step)
            if key >= next_id or (still_open is not None and is_later and key not in still_open):
                del self._fates[key]
            elif is_later if still_open is None else key in still_open:
                self._fates[key] = None

    def _replay(self, path: Path) -> None:
        content = path.read_bytes()
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if number == len(lines) and not _is_whole(line):
                log.warning("%s: cut off a last line that was torn by a kill: %r", path, line[:200])
                os.truncate(path, len(content) - len(line))
                return
            try:
                self._apply(json.loads(line))
            except (ValueError, LedgerError) as error:
                raise LedgerError(f"{path}, line {number}: {error}; restore the file, or start a new run") from error


def _is_whole(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
