"""What each part of a run waits for, and since when: read by the console, Prometheus and the watchdog."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """`since` is on the monotonic clock, from when the part began to wait for this very thing."""

    part: str
    what: str
    since: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


class Waits:
    """The open waits, one per part."""

    def __init__(self) -> None:
        self.open: dict[str, Wait] = {}

    def set(self, part: str, what: str) -> None:
        """The clock restarts when `what` changes, since that is progress; an empty `what` ends the wait."""
        if not what:
            self.open.pop(part, None)
        elif part not in self.open or self.open[part].what != what:
            self.open[part] = Wait(part, what, time.monotonic())

    def now(self) -> tuple[Wait, ...]:
        return tuple(self.open.values())
