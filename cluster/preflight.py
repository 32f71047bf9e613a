"""What is checked before anything starts, so that nothing is lost to a wrong word in a config."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil
from pyarrow.fs import FileSystem

from cluster.config import Config, ConfigError, depot_uri, weights_folder
from cluster.experts import experts_of
from cluster.placement import tasks
from curriculum.stages import stages
from envs.config import rules
from envs.environment import Entry, environment
from learner.estimate import GIB, checkpoint_gb, parameters, weights_gb
from learner.model import prepare

PUBLISHED = 3  # versions on this machine: two that are kept and one that is written


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
        model = prepare(config.actors.model, Path(config.cluster.models).absolute())
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if trains:
        _check_disk(config, model)
    return str(model)


def check_environment(config: Config) -> Entry:
    """ConfigError where there is no such environment, or nothing to run it on."""
    try:
        entry = environment(config.envs.name)
        entry.ready()
    except ValueError as error:
        raise ConfigError(f"envs.name: {error}") from None
    try:
        rules(config.envs)
    except ValueError as error:
        raise ConfigError(f"envs.rules: {error}") from None
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


def _check_disk(config: Config, model: Path) -> None:
    """Room for the checkpoints, the one being written included (it is more than the trained model), and for publications."""
    learner, run, weights = config.learner, Path(config.cluster.runs).absolute() / config.name, Path(weights_folder(config))
    size, whole = parameters(model), -(-learner.num_steps // learner.checkpoint_every)
    checkpoint = checkpoint_gb(size, learner)
    at_once = min(learner.keep_checkpoints + 1, whole)
    held = sum(file.stat().st_size for file in run.glob("checkpoints/step-*/**/*") if file.is_file()) / GIB
    wants = {run: max(at_once * checkpoint - held, checkpoint)}
    if not (config.cluster.address or os.environ.get("RAY_ADDRESS")) or config.cluster.weights:
        wants[weights] = PUBLISHED * weights_gb(size, learner)
    for folder, gib in wants.items():
        there = _existing(folder)
        together = sum(one for other, one in wants.items() if _existing(other).stat().st_dev == there.stat().st_dev)
        free = shutil.disk_usage(there).free / GIB
        if free < together:
            raise ConfigError(
                f"{free:.1f} GiB are free for {folder}, and the run needs {together:.1f}: checkpoints take {checkpoint:.1f} each "
                f"(learner.keep_checkpoints={learner.keep_checkpoints} and the one being written), {PUBLISHED} versions of the "
                f"weights {gib:.1f}; make room, set cluster.{'weights' if folder == weights else 'runs'} to another disk"
            )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
