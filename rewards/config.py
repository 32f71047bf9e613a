"""The rubrics by name: which parts each weighs, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from rewards.calls import calls
from rewards.format import format, well_formed
from rewards.matching import matching
from rewards.penalty import errors, extra, given_up, idle, malformed
from rewards.points import points
from rewards.progress import progress, success
from rewards.reward import Reward, Rubric
from rewards.solve import solve, solve_f1, solve_lenient, solve_p, solve_precision, solve_r, solve_recall, solve_square

PARTS: dict[str, Reward] = {
    "format": format,
    "well_formed": well_formed,
    "progress": progress,
    "success": success,
    "points": points,
    "matching": matching,
    "calls": calls,
    "errors": errors,
    "malformed": malformed,
    "idle": idle,
    "given_up": given_up,
    "extra": extra,
    "solve": solve,
    "solve_lenient": solve_lenient,
    "solve_recall": solve_recall,
    "solve_precision": solve_precision,
    "solve_square": solve_square,
    "solve_p": solve_p,
    "solve_r": solve_r,
    "solve_f1": solve_f1,
}


def _defaults() -> dict[str, dict[str, float]]:
    # In this order, worst first: a malformed message, no call at all, giving up after an error or where in doubt, and
    # trying to the end. Whatever pays more than going on trying is what the policy settles for.
    trying = {"progress": 0.5, "calls": 0.5, "errors": -0.2, "given_up": -0.25, "idle": -0.3, "malformed": -0.3, "extra": -0.02}
    return {"format": {"format": 0.5}, "progress": trying, "points": {"points": 1.0}}


@dataclass(frozen=True)
class RewardsConfig:
    """`rubrics`: rubric name -> part name -> weight."""

    rubrics: dict[str, dict[str, float]] = field(default_factory=_defaults)

    def __post_init__(self) -> None:
        for name, weights in self.rubrics.items():
            for part in weights:
                if part not in PARTS:
                    raise ValueError(f"rubric {name!r} weighs {part!r}: no such part; there are: {', '.join(PARTS)}")
            if not weights:
                raise ValueError(f"rubric {name!r} weighs no part; give it one of: {', '.join(PARTS)}")


def rubrics(config: RewardsConfig) -> dict[str, Rubric]:
    return {name: Rubric(PARTS, weights) for name, weights in config.rubrics.items()}
