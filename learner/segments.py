"""What an expert's actions between two states were worth, by whether the policy succeeds from those states."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Segment(StrEnum):
    """`RECOVERY` is beneficial too: it leads out of a state that harmful actions had led into."""

    BENEFICIAL = "beneficial"
    HARMFUL = "harmful"
    RECOVERY = "recovery"
    UNKNOWN = "unknown"


def segments(succeeds: Sequence[bool]) -> tuple[Segment, ...]:
    """The stretch between each state and the next, in the order of the expert's trajectory. EEF (2504.13145).

    From failing to succeeding the expert's actions helped; from succeeding to failing they harmed. Where both ends are
    alike, simulations say nothing of what lies between.
    """
    found: list[Segment] = []
    for at, (before, after) in enumerate(zip(succeeds, succeeds[1:], strict=False)):
        if before == after:
            found.append(Segment.UNKNOWN)
        elif before:
            found.append(Segment.HARMFUL)
        else:
            found.append(Segment.RECOVERY if any(succeeds[:at]) else Segment.BENEFICIAL)
    return tuple(found)
