"""Which parts a run has and where each starts: the only place that knows classes, resources and names together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from actors.engine_pool import EnginePool
from actors.env_actor import EnvActor
from cluster.config import Config, depot_uri
from cluster.experts import experts_of
from cluster.gang import Gang
from cluster.remote import LocalSpawn, RaySpawn, Resources, Spawn, computing
from cluster.respawn import Respawn
from cluster.system import System
from curriculum.coordinator import Coordinator
from envs.config import rules
from envs.environment import environment
from envs.types import Task
from learner.buffer import Buffer
from learner.credits import Credits
from learner.deepspeed_learner import DeepSpeedLearner, LearnerPlace
from learner.depot import Depot
from learner.learner import Learner
from rewards.config import rubrics


def place(config: Config, model: str, *, weights: str, rendezvous: str) -> System:
    """Start every part of a run. Nothing is awaited: what is slow to start is waited for by its first call."""
    spawn = _spawn(config)
    engines, actors = place_actors(config, model)
    return System(
        config=config,
        curriculum=spawn(_coordinator(config), "curriculum"),
        actors=actors,
        engines=engines,
        learner=place_learner(config, model, weights=weights, rendezvous=rendezvous),
        buffer=Buffer(
            groups_per_batch=config.learner.groups_per_batch,
            max_lag=config.learner.max_lag,
            max_refills=config.learner.max_refills,
            teaches=Credits(config.learner.credit, config.learner.solutions).teaches,
        ),
    )


def place_actors(config: Config, model: str) -> tuple[EnginePool, tuple[EnvActor, ...]]:
    """The acting half alone: what an evaluation needs."""
    spawn = _spawn(config)
    engines = _engines(config, model, spawn)
    return engines, _env_actors(config, model, spawn=spawn, engines=engines)


def place_learner(config: Config, model: str, *, weights: str, rendezvous: str) -> Learner:
    """The learning half alone: every rank, behind the face of one."""
    spawn = _spawn(config)
    count = config.learner.num_ranks
    threads = config.cluster.learner_threads or max(1, (os.cpu_count() or 1) // count)
    uri = depot_uri(config)
    depot = Depot(uri, whole_every=config.cluster.whole_every) if uri else None
    variables = computing(takes_turns=not config.learner.max_lag)
    resources = Resources(config.cluster.learner_cpus, config.cluster.learner_gpus, variables)
    ranks = [
        spawn(
            partial(
                DeepSpeedLearner,
                config.learner,
                model=model,
                place=LearnerPlace(rank, count, rendezvous, threads, depot),
                folder=weights,
                seed=config.seed,
            ),
            f"learner-rank-{rank}",
            resources=resources,
        )
        for rank in range(count)
    ]
    return Gang(ranks)


def tasks(config: Config, split: str, *, most: int = 0) -> Mapping[str, Sequence[Task]]:
    """The tasks of a split by level, at most `most` a level where that is not 0."""
    entry = environment(config.envs.name)
    return {level: tuple(entry.taskset(split, level))[: most or None] for level in config.envs.levels or entry.levels}


def _spawn(config: Config) -> Spawn:
    return LocalSpawn() if config.cluster.spawn == "local" else RaySpawn(config.name)


def _engines(config: Config, model: str, spawn: Spawn) -> EnginePool:
    respawn = Respawn(spawn, config, model)
    return spawn(partial(EnginePool, respawn.engines, respawn, deadlines=config.actors.deadlines), "engines")


def _coordinator(config: Config) -> partial[Coordinator]:
    pool, name = tasks(config, "train"), config.envs.name
    oracle, experts = environment(name).oracle, experts_of(config, pool)
    return partial(Coordinator, config.curriculum, env=name, tasks=pool, oracle=oracle, seed=config.seed, experts=experts)


def _env_actors(config: Config, model: str, *, spawn: Spawn, engines: EnginePool) -> tuple[EnvActor, ...]:
    make = partial(
        EnvActor, config.actors, spawn.caller(engines), model=model, rules=rules(config.envs), rubrics=rubrics(config.rewards)
    )
    resources = Resources(config.cluster.env_cpus)
    return tuple(spawn(make, f"env-{n}", resources=resources) for n in range(config.actors.num_env_actors))
