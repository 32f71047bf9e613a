"""A stage with its tasks: what the config's words come to, once the tasksets are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curriculum.config import CurriculumConfig, StageConfig
from curriculum.experts import NO_EXPERTS, Experts
from envs.types import Task


@dataclass(frozen=True, slots=True)
class Stage:
    """`shares` sum to 1; `tasks` has the same levels, none of them empty."""

    config: StageConfig
    shares: Mapping[str, float]
    tasks: Mapping[str, Sequence[Task]]


def stages(config: CurriculumConfig, tasks: Mapping[str, Sequence[Task]], experts: Experts = NO_EXPERTS) -> tuple[Stage, ...]:
    """Every stage of the config; ValueError where one names a level that has no tasks, or none with the experts it wants."""
    return tuple(_stage(stage, tasks, experts) for stage in config.stages)


def _stage(config: StageConfig, tasks: Mapping[str, Sequence[Task]], experts: Experts) -> Stage:
    for level in config.levels:
        if not tasks.get(level):
            there = ", ".join(sorted(name for name, pool in tasks.items() if pool))
            raise ValueError(f"curriculum stage {config.name!r} wants level {level!r} without tasks; there are: {there}")
    if config.experts:
        tasks = {level: _with_experts(config, tasks[level], experts) for level in config.levels}
    total = sum(config.levels.values())
    shares = {level: share / total for level, share in config.levels.items()}
    return Stage(config, shares, {level: tasks[level] for level in shares})


def _with_experts(config: StageConfig, pool: Sequence[Task], experts: Experts) -> Sequence[Task]:
    """The tasks with an expert to begin from; to be imitated whole, it must have succeeded."""
    is_whole = config.experts == "whole"
    if found := [task for task in pool if experts.usable(task.id, successful=is_whole)]:
        return found
    what, level = "successful experts" if is_whole else "experts", pool[0].level
    raise ValueError(
        f"curriculum stage {config.name!r} wants {what} for level {level!r}, and curriculum.experts has them for no training "
        "task there; make some with tiltyard experts, or leave the level out"
    )
