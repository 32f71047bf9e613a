"""What deploy.bench_trl tells deploy.trl_peer; both environments import it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What both systems are told; `tasks` in their order; `micro` is TRL's microbatch, in trajectories."""

    model: str
    calls: str
    level: str
    tasks: list[str]
    rubric: dict[str, float]
    num_steps: int
    num_groups: int
    group_size: int
    micro: int
    max_tokens: int
    temperature: float
    learning_rate: float
    warmup_steps: int
    betas: list[float]
    max_grad_norm: float
    clip_low: float
    clip_high: float
    seed: int
    out: str
