"""What serves inference: the Engine protocol, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from envs.types import Span
from learner.weights import Weights


class EngineError(RuntimeError):
    """The engine failed; the machine's fault, never the policy's."""


class PromptTooLong(ValueError):
    """The conversation no longer fits the model's context: the episode ends for its length."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample one action. Temperature 0 is greedy; `stops` end it beside the tokens that the model's folder names."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int | None = None
    stops: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine answers. `finish` is "stop" (the end-of-turn token is the last of `tokens`) or "length"."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: str
    versions: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Requests in the engine, and beyond what it works on at once; tokens answered so far; the version served.

    `kv_usage` is the share of its KV cache that requests hold; `preemptions` counts those that it threw out for want of
    room so far, whose tokens it computes again.
    """

    running: int = 0
    waiting: int = 0
    tokens: int = 0
    version: int = 0
    kv_usage: float = 0.0
    preemptions: int = 0


class Engine(Protocol):
    async def ready(self) -> None:
        """Return once it can serve; a real engine takes many seconds to start."""
        ...

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        """Sample one action after `tokens`. `session` names the trajectory, so that a pool can be sticky."""
        ...

    async def forget(self, session: str) -> None:
        """The trajectory of that session has ended."""
        ...

    async def load(self, weights: Weights) -> None:
        """Serve these weights from now on. Any error leaves the engine unusable: its owner must replace it."""
        ...

    async def stats(self) -> EngineStats: ...
