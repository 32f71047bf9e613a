"""The parts of a run."""

from __future__ import annotations

from dataclasses import dataclass

from actors.engine_pool import EnginePool
from actors.env_actor import EnvActor
from cluster.config import Config
from curriculum.coordinator import Coordinator
from learner.buffer import Buffer
from learner.learner import Learner


@dataclass(frozen=True, slots=True)
class System:
    """Local objects or actors on other nodes alike: every method that crosses is awaited."""

    config: Config
    curriculum: Coordinator
    actors: tuple[EnvActor, ...]
    engines: EnginePool
    learner: Learner
    buffer: Buffer
