"""What the curriculum can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SAMPLERS = ("uniform", "frontier")
EXPERTS = ("", "states", "whole")


@dataclass(frozen=True)
class GateConfig:
    """When a stage may end.

    The validation reward has plateaued where the best of the last `plateau_validations` is not above the best before
    them by more than `plateau_delta`; the gradient norm is stable where its coefficient of variation since then is at
    most `grad_norm_spread`. A validation reward of `min_validation` ends the stage without either.
    """

    plateau_validations: int = 3
    plateau_delta: float = 0.01
    grad_norm_spread: float = 0.5
    min_validation: float = 2.0  # above any reward: never

    def __post_init__(self) -> None:
        if self.plateau_validations < 2:
            raise ValueError(f"gate.plateau_validations is {self.plateau_validations}; one is no trend, use at least 2")
        for name in ("plateau_delta", "grad_norm_spread"):
            value = float(vars(self)[name])
            if not value >= 0:
                raise ValueError(f"gate.{name} is {value}; it must be at least 0")


@dataclass(frozen=True)
class StageConfig:
    """One regime. `levels` maps a level to its share of the assignments, as positive numbers of any sum."""

    name: str
    levels: dict[str, float]
    reward: str = "progress"
    augmentation: float = 0.0
    sampler: str = "uniform"
    temperature: float = 0.0  # 0: actors.temperature
    entropy: float = 0.0  # nats a token: the temperature rises from `temperature` while there is less; 0: it stays
    credit: str = ""  # empty: learner.credit
    midway: float = 0.0  # share of the groups that begin on the way of an expert or the reference, until solved from there
    backward: bool = False  # they begin close to the end, and further from it as that is solved; without, anywhere
    experts: str = ""  # "states": simulate from the beginning and from states on an expert's way; "whole": the expert alone
    num_states: int = 5  # on the expert's way, beside the beginning; `group_size` simulations from each
    one_message: bool = False  # groups of one message each, also from states that the policy came to (FTRL's way to collect)
    group_size: int = 8
    min_steps: int = 1
    max_steps: int = 0  # 0: no limit, which only the last stage may have
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        where = f"curriculum stage {self.name!r}"
        if not self.name:
            raise ValueError("a curriculum stage has an empty name; name it, since reports and gates speak of it")
        if not self.levels:
            raise ValueError(f"{where} has no levels; give at least one, such as {{'1': 1.0}}")
        for level, share in self.levels.items():
            if not (share > 0 and math.isfinite(share)):
                raise ValueError(f"{where} gives level {level!r} the share {share}; make it positive or leave it out")
        for name in ("augmentation", "midway"):
            if not 0 <= float(vars(self)[name]) <= 1:
                raise ValueError(f"{where} has {name} {vars(self)[name]}; it must lie in [0, 1]")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"{where} has temperature {self.temperature}; it must be above 0, or 0 for actors.temperature")
        if not (self.entropy >= 0 and math.isfinite(self.entropy)):
            raise ValueError(f"{where} has entropy {self.entropy}; it must be above 0, or 0 for a temperature that stays")
        if self.entropy and not self.temperature:
            raise ValueError(f"{where} has entropy {self.entropy} and no temperature to start from; set temperature, such as 1.0")
        if self.experts not in EXPERTS:
            raise ValueError(f'{where} has experts {self.experts!r}; it is "states", "whole" or left out')
        if self.experts and (self.midway or self.one_message):
            raise ValueError(
                f"{where} has experts {self.experts!r}, which say where groups begin; leave out midway and one_message"
            )
        if self.backward and not self.midway:
            raise ValueError(f"{where} has backward and no midway; say which share of the groups begins so, such as midway: 0.5")
        if self.num_states < 0:
            raise ValueError(f"{where} has num_states {self.num_states}; it must be at least 0, which is the beginning alone")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"{where} has sampler {self.sampler!r}; there are: {', '.join(SAMPLERS)}")
        if self.group_size < 1:
            raise ValueError(f"{where} has group_size {self.group_size}; it must be at least 1")
        if self.min_steps < 1:
            raise ValueError(f"{where} has min_steps {self.min_steps}; it must be at least 1")
        if self.max_steps and self.max_steps < self.min_steps:
            raise ValueError(f"{where} has max_steps {self.max_steps} below min_steps {self.min_steps}; raise the former")


@dataclass(frozen=True)
class ValidationConfig:
    """The greedy evaluation that gates read: `num_tasks` of each level, after every `every_steps` steps."""

    num_tasks: int = 20
    every_steps: int = 5

    def __post_init__(self) -> None:
        for name in ("num_tasks", "every_steps"):
            value = int(vars(self)[name])
            if value < 1:
                raise ValueError(f"curriculum.validation.{name} is {value}; it must be at least 1")


def _one_stage() -> list[StageConfig]:
    return [StageConfig("all", {"1": 1.0, "2": 1.0, "3": 1.0})]


@dataclass(frozen=True)
class CurriculumConfig:
    """The stages in their order. Without any said, one stage over all levels of the embedded environment."""

    stages: list[StageConfig] = field(default_factory=_one_stage)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    experts: str = ""  # a file that `tiltyard experts` wrote

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("curriculum.stages is empty; give at least one stage")
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"curriculum.stages uses the name {twice[0]!r} more than once; make the names unique")
        for stage in self.stages:
            if stage.experts and not self.experts:
                raise ValueError(
                    f"curriculum stage {stage.name!r} has experts {stage.experts!r}, and curriculum.experts names no file; "
                    "make one with tiltyard experts"
                )
        for stage in self.stages[:-1]:
            if not stage.max_steps:
                raise ValueError(f"curriculum stage {stage.name!r} has max_steps 0 (no limit); only the last may")
