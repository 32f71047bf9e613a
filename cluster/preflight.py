"""What is checked before anything starts, so that nothing is lost to a wrong word in a config."""

from __future__ import annotations

from pathlib import Path

import psutil
from pyarrow.fs import FileSystem

from cluster.config import Config, ConfigError, depot_uri, weights_folder
from cluster.experts import experts_of
from cluster.placement import tasks
from curriculum.stages import stages
from envs.environment import Entry, environment
from learner.model import prepare

GIB = 2**30


def check(config: Config, *, trains: bool = True) -> str:
    """The model's folder, once every check has passed; ConfigError with the value and the remedy otherwise.

    What only stages need is not asked for where nothing `trains`: a run can be evaluated on another environment.
    """
    if trains:
        check_levels(config)
    else:
        check_environment(config)
    _check_memory(config)
    _check_weights(config)
    try:
        return str(prepare(config.actors.model, Path(config.cluster.models).absolute()))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_environment(config: Config) -> Entry:
    """ConfigError where there is no such environment, or nothing to run it on."""
    try:
        entry = environment(config.envs.name)
        entry.ready()
    except ValueError as error:
        raise ConfigError(f"envs.name: {error}") from None
    return entry


def check_levels(config: Config) -> None:
    """As `check_environment`, and where it has not the levels or experts that stages name."""
    entry = check_environment(config)
    known = config.envs.levels or entry.levels
    for stage in config.curriculum.stages:
        if unknown := sorted(set(stage.levels) - set(known)):
            where = "envs.levels" if config.envs.levels else config.envs.name
            raise ConfigError(f"stage {stage.name!r} names level {unknown[0]!r}; {where} has {', '.join(known)}")
    if config.curriculum.experts:
        pools = tasks(config, "train")
        try:
            stages(config.curriculum, pools, experts_of(config, pools))
        except ValueError as error:
            raise ConfigError(str(error)) from None


def _check_weights(config: Config) -> None:
    told = config.cluster.weights
    if not told:
        return
    try:
        system, path = FileSystem.from_uri(depot_uri(config) or Path(weights_folder(config)).as_uri())
        system.create_dir(path)
    except (ValueError, OSError, NotImplementedError) as error:
        raise ConfigError(
            f"cluster.weights is {told!r}, where nothing can be written ({str(error).splitlines()[0]}); give a folder that all "
            "nodes see, a URI that pyarrow.fs opens, such as s3://bucket/folder, or leave it out"
        ) from None


def _check_memory(config: Config) -> None:
    free = psutil.virtual_memory().available / GIB
    if free < config.cluster.min_memory_gb:
        raise ConfigError(
            f"{free:.1f} GB of memory are free, cluster.min_memory_gb asks for {config.cluster.min_memory_gb}; end other "
            "programs, or lower it together with actors.engine.kv_cache_gb"
        )
