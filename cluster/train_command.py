"""`tiltyard train`: a config becomes a run folder with its summary and report."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from cluster.config import Config, ConfigError, depot_uri, dump, load, weights_folder
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
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(dump(config))
        return _train(config, folder, model=model, resume=resume)
    except ConfigError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2


def _train(config: Config, folder: Path, *, model: str, resume: Checkpoint | None) -> int:
    # Torch, Ray and the rest take seconds to import: a wrong word in the config is told before.
    start = importlib.import_module("cluster.run").start
    weights = weights_folder(config)
    print(f"run {folder}" + (f", going on after step {resume.step}" if resume else ""), flush=True)
    try:
        return start(config, folder, model=model, weights=weights, resume=resume)
    except ConfigError:
        raise
    except Exception as error:  # the border of the process: the trace goes to a file, the reason to the person
        (folder / "failure.txt").write_text("".join(traceback.format_exception(error)))
        print(f"tiltyard: the run failed: {reason(error)}", file=sys.stderr)
        print(f"the trace is in {folder}/failure.txt; go on with: tiltyard train --resume {folder}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(weights, ignore_errors=True)
        if uri := depot_uri(config):
            remove(uri)


def _open(arguments: argparse.Namespace) -> tuple[Config, Path, Checkpoint | None]:
    if not arguments.resume:
        config = load(Path(arguments.config), arguments.overrides)
        folder = _fresh(Path(config.cluster.runs).absolute() / config.name)
        return replace(config, name=folder.name), folder, None
    folder = Path(arguments.resume).absolute()
    config = load(folder / "config.yaml", arguments.overrides)
    found = checkpoint.latest(folder / "checkpoints")
    if found is None:
        raise ConfigError(f"{folder} has no whole checkpoint to resume from; start anew: tiltyard train {folder / 'config.yaml'}")
    return config, folder, found


def _fresh(folder: Path) -> Path:
    """`folder`, or the same with a number behind it: an earlier run is never written over."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in range(2, 10**6))
    return folder if not folder.exists() else next(path for path in numbered if not path.exists())
