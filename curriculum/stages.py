"""A stage with its tasks: what the config's words come to, once the tasksets are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curriculum.config import CurriculumConfig, StageConfig
from envs.types import Task


@dataclass(frozen=True, slots=True)
class Stage:
    """`shares` sum to 1; `tasks` has the same levels, none of them empty."""

    config: StageConfig
    shares: Mapping[str, float]
    tasks: Mapping[str, Sequence[Task]]


def stages(config: CurriculumConfig, tasks: Mapping[str, Sequence[Task]]) -> tuple[Stage, ...]:
    """Every stage of the config; ValueError where one names a level that has no tasks."""
    return tuple(_stage(stage, tasks) for stage in config.stages)


def _stage(config: StageConfig, tasks: Mapping[str, Sequence[Task]]) -> Stage:
    for level in config.levels:
        if not tasks.get(level):
            there = ", ".join(sorted(name for name, pool in tasks.items() if pool))
            raise ValueError(f"curriculum stage {config.name!r} wants level {level!r} without tasks; there are: {there}")
    total = sum(config.levels.values())
    shares = {level: share / total for level, share in config.levels.items()}
    return Stage(config, shares, {level: tasks[level] for level in shares})
