"""`tiltyard train`: a config becomes a run folder with its summary and report."""

from __future__ import annotations

import argparse
import fcntl
import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from cluster.config import Config, ConfigError, depot_uri, load, load_run, save, weights_folder
from cluster.preflight import check
from learner import checkpoint
from learner.checkpoint import Checkpoint
from learner.depot import remove
from learner.errors import reason


def main(arguments: argparse.Namespace) -> int:
    """Exit status 0 where the run ended or was stopped cleanly, 1 where it failed, 2 where it could not start."""
    try:
        config, folder, resume = _open(arguments)
        model = check(config)
        if resume is None:
            folder = _fresh(folder)
            config = replace(config, name=folder.name)
            save(config, folder)
        with _claimed(folder):
            return _train(config, folder, model=model, resume=resume)
    except ConfigError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2


def _train(config: Config, folder: Path, *, model: str, resume: Checkpoint | None) -> int:
    # Torch, Ray and the rest take seconds to import: a wrong word in the config is told before.
    start = importlib.import_module("cluster.run").start
    weights = weights_folder(config)
    _remove_weights(config, weights)  # what a run that was killed has left there
    print(f"run {folder}" + (f", going on after step {resume.step}" if resume else ""), flush=True)
    try:
        return start(config, folder, model=model, weights=weights, resume=resume)
    except ConfigError:
        raise
    except Exception as error:  # the border of the process: the trace goes to a file, the reason to the person
        print(f"tiltyard: the run failed: {reason(error)}", file=sys.stderr)
        (folder / "failure.txt").write_text("".join(traceback.format_exception(error)))
        print(f"the trace is in {folder}/failure.txt; go on with: tiltyard train --resume {folder}", file=sys.stderr)
        return 1
    finally:
        _remove_weights(config, weights)


def _remove_weights(config: Config, weights: str) -> None:
    """Of this run, whose folder it is alone."""
    shutil.rmtree(weights, ignore_errors=True)
    if uri := depot_uri(config):
        remove(uri)


def _open(arguments: argparse.Namespace) -> tuple[Config, Path, Checkpoint | None]:
    if not arguments.resume:
        config = load(Path(arguments.config), arguments.overrides)
        return config, Path(config.cluster.runs).absolute() / config.name, None
    folder = Path(arguments.resume).absolute()
    config = load_run(folder, arguments.overrides)
    # It may have been moved or copied since.
    config = replace(config, name=folder.name, cluster=replace(config.cluster, runs=str(folder.parent)))
    found = checkpoint.latest(folder / "checkpoints")
    if found is None:
        raise ConfigError(f"{folder} has no whole checkpoint to resume from; start anew: tiltyard train {folder / 'config.yaml'}")
    return config, folder, found


def _fresh(folder: Path) -> Path:
    """`folder`, or the same with a number behind it, made: an earlier run is never written over."""
    for number in count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("numbers do not end")


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Nobody else trains in `folder` meanwhile."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system may know no locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"another process trains in {folder}; wait for its end, or stop it by Ctrl-C") from None
        yield
    finally:
        os.close(handle)
