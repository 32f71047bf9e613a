"""An Engine without a model: plays the actions that a script gives. For oracles, random policies, replay and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from actors.engine import Completion, EngineStats, PromptTooLong, Sampling
from envs.types import Span
from learner.weights import Weights

Script = Callable[[Sequence[int], str], Sequence[int]]  # tokens so far, session -> the action's tokens


class ScriptedEngine:
    """Cuts an action at `max_tokens` as a real engine does. `latency(session)` is in seconds."""

    def __init__(
        self,
        script: Script,
        *,
        logprob: float = -0.5,
        max_model_len: int = 2**20,
        latency: Callable[[str], float] | None = None,
    ) -> None:
        self._script, self._logprob, self._max_model_len, self._latency = script, logprob, max_model_len, latency
        self.version = 0

    async def ready(self) -> None:
        return None

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        """The script's action; its version is that of the weights when the call came."""
        room = self._max_model_len - len(tokens)
        if room < 1:
            raise PromptTooLong(f"{len(tokens)} tokens leave no room in max_model_len={self._max_model_len}")
        version = self.version
        if self._latency is not None:
            await asyncio.sleep(self._latency(session))
        script = tuple(self._script(tokens, session))
        action = script[: min(sampling.max_tokens, room)]
        finish = "stop" if len(action) == len(script) else "length"
        return Completion(action, (self._logprob,) * len(action), finish, (Span(version, 0, len(action)),))

    async def forget(self, session: str) -> None:
        return None

    async def load(self, weights: Weights) -> None:
        self.version = weights.version

    async def stats(self) -> EngineStats:
        return EngineStats(version=self.version)
