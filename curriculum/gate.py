"""When to move on: the validation reward has plateaued and the gradient norm is stable (EnvTuning, remark 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from curriculum.config import GateConfig


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What one optimiser step came to; `validation` is the mean validation reward where the step was validated."""

    step: int
    stage: str
    grad_norm: float
    validation: float | None = None
    entropy: float | None = None  # nats a token, as sampled, of the groups trained on


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to move on, and a sentence that says why with the figures in it."""

    advance: bool
    reason: str


def decide(history: Sequence[StepFacts], gate: GateConfig, *, min_steps: int, max_steps: int) -> Decision:
    """Judge a stage by the facts of its own steps, oldest first. `max_steps` 0 is no limit."""
    num_steps = len(history)
    if max_steps and num_steps >= max_steps:
        return Decision(True, f"{num_steps} steps are the most that this stage may have ({max_steps})")
    if num_steps < min_steps:
        return Decision(False, f"{num_steps} of at least {min_steps} steps are done")
    validated = [(at, facts.validation) for at, facts in enumerate(history) if facts.validation is not None]
    if validated and validated[-1][1] >= gate.min_validation:
        return Decision(True, f"validation reward {validated[-1][1]:.3f} reached the target {gate.min_validation:.3f}")
    if len(validated) <= gate.plateau_validations:
        return Decision(False, f"{len(validated)} of {gate.plateau_validations + 1} validations are there to judge by")
    before, last = validated[: -gate.plateau_validations], validated[-gate.plateau_validations :]
    trend = _trend(max(value for _, value in before), max(value for _, value in last), gate)
    norms = _stability([facts.grad_norm for facts in history[before[-1][0] + 1 :]], gate)
    return Decision(trend.advance and norms.advance, f"{trend.reason}; {norms.reason}")


def _trend(before: float, last: float, gate: GateConfig) -> Decision:
    is_flat = last - before <= gate.plateau_delta
    words = "has plateaued" if is_flat else "still rises"
    figures = f"best of the last {gate.plateau_validations} {last:.3f}, before {before:.3f}, limit +{gate.plateau_delta:g}"
    return Decision(is_flat, f"the validation reward {words} ({figures})")


def _stability(norms: Sequence[float], gate: GateConfig) -> Decision:
    spread = _spread(norms)
    is_stable = spread <= gate.grad_norm_spread
    words = "is stable" if is_stable else "is not stable"
    figures = f"spread {spread:.2f} over {len(norms)} steps, limit {gate.grad_norm_spread:g}"
    return Decision(is_stable, f"the gradient norm {words} ({figures})")


def _spread(norms: Sequence[float]) -> float:
    """The coefficient of variation; infinite where any norm is not finite, so that an explosion is never stable."""
    if not all(math.isfinite(norm) for norm in norms):
        return math.inf
    mean = fmean(norms)
    return pstdev(norms) / mean if mean else 0.0
