"""Starts engines; apart from placement, since it travels to the pool, which must not import the learner."""

from __future__ import annotations

from functools import partial

from actors.engine import Engine
from actors.vllm_engine import VLLMEngine
from cluster.config import Config
from cluster.remote import Resources, Spawn, computing


class Respawn:
    """Starts engines, and starts one anew where the pool finds it failed; sent to the pool with its engines."""

    def __init__(self, spawn: Spawn, config: Config, model: str) -> None:
        self._spawn, self._config, self._model = spawn, config, model
        self._started = [self._start(index, 0) for index in range(config.actors.num_engines)]
        self._attempts = [0] * len(self._started)
        self.engines = [spawn.caller(engine) for engine in self._started]

    async def __call__(self, index: int) -> Engine:
        self._spawn.kill(self._started[index])
        self._attempts[index] += 1
        self._started[index] = self._start(index, self._attempts[index])
        await self._started[index].ready()
        return self._spawn.caller(self._started[index])

    def _start(self, index: int, attempt: int) -> VLLMEngine:
        cluster, actors = self._config.cluster, self._config.actors
        name = f"engine-{index}" + (f".{attempt}" if attempt else "")
        make = partial(VLLMEngine, actors.engine, model=self._model, seed=self._config.seed + index)
        variables = computing(takes_turns=not self._config.learner.max_lag and actors.num_engines == 1)
        return self._spawn(make, name, resources=Resources(cluster.engine_cpus, cluster.engine_gpus, variables))
