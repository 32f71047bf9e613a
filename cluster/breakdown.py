"""Where a step's wall time went, in parts that sum to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envs.types import Trajectory

ACTING = ("engine", "environment", "reward")


def breakdown(
    phases: Mapping[str, float], seconds: float, *, trajectories: Sequence[Trajectory], learner: Mapping[str, float]
) -> Mapping[str, float]:
    """Metrics "cluster/<part>_s", each in seconds, whose sum is `seconds`, the step's wall time.

    `phases` are the loop's own, one after the other. The time that the learner waited for groups ("generate") is divided
    as the trajectories finished in it spent theirs; "update" into the learner's passes, its optimiser and the way there
    and back. What is in none of them is "books": ledger, store and curriculum.
    """
    known = {name: spent for name, spent in phases.items() if name not in ("generate", "update")}
    spent = {**known, **_acting(phases.get("generate", 0.0), trajectories), **_learning(phases.get("update", 0.0), learner)}
    spent["books"] = seconds - sum(spent.values())
    return {f"cluster/{name}_s": value for name, value in spent.items()}


def parts(metrics: Mapping[str, float]) -> dict[str, float]:
    """The parts of `breakdown` among a step's metrics, by name, the largest first."""
    found = {key.removeprefix("cluster/").removesuffix("_s"): value for key, value in metrics.items() if _is_part(key)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _is_part(key: str) -> bool:
    return key.startswith("cluster/") and key.endswith("_s")


def _acting(seconds: float, trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What an episode spends on none of the three is rendering, parsing and its place in the actor's queue."""
    spent = {name: sum(trajectory.spent.get(name, 0.0) for trajectory in trajectories) for name in ACTING}
    whole = sum(trajectory.seconds for trajectory in trajectories)
    spent["actor"] = max(0.0, whole - sum(spent.values()))
    total = sum(spent.values())
    if not total:
        return {"engine": seconds}
    return {name: seconds * share / total for name, share in spent.items()}


def _learning(seconds: float, learner: Mapping[str, float]) -> dict[str, float]:
    own, optimizer = learner.get("learner/seconds", 0.0), learner.get("learner/step_seconds", 0.0)
    return {"passes": own - optimizer, "optimizer": optimizer, "transfer": seconds - own}
