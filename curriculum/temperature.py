"""The temperature that keeps siblings apart: raised as the policy grows sure of itself, so that groups still differ."""

from __future__ import annotations

STEP, HIGHEST = 0.05, 1.3  # above it tokens are sampled that no policy means


def next_temperature(now: float, entropy: float | None, *, target: float, lowest: float) -> float:
    """One step up where `entropy` (nats a token, as sampled) is below `target`, else one down, within [lowest, HIGHEST].

    Siblings that all do alike carry no signal, whatever they do. None, no tokens were trained on, is as sure as can be.
    """
    is_sure = entropy is None or entropy < target
    return round(min(max(now + (STEP if is_sure else -STEP), lowest), max(HIGHEST, lowest)), 6)
