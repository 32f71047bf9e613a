"""What the learner can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from learner.credits import NAMES
from learner.imitation import CHOICES, IMITATIONS

AGGREGATIONS = ("token", "sequence")
DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class LearnerConfig:
    """One optimiser step takes `groups_per_batch` groups; `max_tokens` bounds the unique tokens of a microbatch."""

    num_steps: int = 60
    groups_per_batch: int = 8
    learning_rate: float = 4e-5
    warmup_steps: int = 0
    final_rate: float = 1.0  # the learning rate of the last step as a share of `learning_rate`, approached linearly
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    max_grad_norm: float = 1.0
    zero_stage: int = 1
    num_ranks: int = 1
    max_lag: int = 0
    max_refills: int = 8  # groups without signal that are replaced per step, before the batch is left smaller
    max_tokens: int = 1536
    dtype: str = "bfloat16"
    dither: bool = True  # of the fp32 masters of bfloat16 weights, which would else not follow small updates at first
    credit: str = "grpo"  # of stages that name none
    solutions: str = "all"  # which of several to imitate, where a credit imitates
    normalize: bool = (
        False  # advantages to mean 0 and std 1 over the batch: with `reward` REINFORCE++, with `mean` its baseline form
    )
    aggregation: str = "token"
    clip_low: float = 0.2
    clip_high: float = 0.28
    max_weight: float = 2.0
    kl: float = 0.0
    activation_checkpointing: bool = False
    checkpoint_every: int = 10
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for name in (
            "num_steps",
            "groups_per_batch",
            "num_ranks",
            "max_tokens",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            _check_number(name, vars(self)[name], at_least=1)
        for name in ("warmup_steps", "max_lag", "max_refills", "weight_decay", "clip_high", "kl"):
            _check_number(name, vars(self)[name], at_least=0)
        for name in ("learning_rate", "max_grad_norm", "final_rate"):
            _check_number(name, vars(self)[name], at_least=0, inclusive=False)
        _check_name("zero_stage", self.zero_stage, (1, 2, 3))
        _check_name("dtype", self.dtype, DTYPES)
        _check_name("solutions", self.solutions, tuple(CHOICES))
        _check_name("aggregation", self.aggregation, AGGREGATIONS)
        check_credit(self.credit, self.normalize, "learner.credit")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"learner.betas is {self.betas}: give two numbers of [0, 1), such as [0.9, 0.95]")
        if not 0 <= self.clip_low < 1:
            raise ValueError(f"learner.clip_low is {self.clip_low}: give a number of [0, 1)")
        if not 1 + self.clip_high <= self.max_weight < math.inf:
            raise ValueError(
                f"learner.max_weight is {self.max_weight}: give a finite number of at least 1 + clip_high = "
                f"{1 + self.clip_high}, or the truncation would act before the clip"
            )

    def rate(self, step: int) -> float:
        """The learning rate of the update after `step` others: a linear rise, and a linear way to `final_rate`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        way = min(1.0, step / max(1, self.num_steps - 1))
        return self.learning_rate * warm * (1 + way * (self.final_rate - 1))


def check_credit(credit: str, normalize: bool, where: str) -> None:
    """ValueError where there is no such credit, or the two do not go together."""
    if credit not in NAMES:
        raise ValueError(f"{where} is {credit!r}: choose one of {', '.join(NAMES)}")
    if (credit == "reward") > normalize or (normalize and credit in IMITATIONS):
        raise ValueError(
            f"{where} is {credit!r} with learner.normalize {str(normalize).lower()}: 'reward' has no baseline but the "
            f"batch's and needs it true; {', '.join(IMITATIONS)} keep or leave out and need it false"
        )


def _check_number(name: str, value: float, *, at_least: float, inclusive: bool = True) -> None:
    if not math.isfinite(value) or value < at_least or (value == at_least and not inclusive):
        raise ValueError(f"learner.{name} is {value}: give a number {'of at least' if inclusive else 'above'} {at_least}")


def _check_name(name: str, value: str | int, allowed: tuple[str, ...] | tuple[int, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"learner.{name} is {value!r}: choose one of {', '.join(map(str, allowed))}")
