"""`tiltyard evaluate`: success by level of a config's model, or of a finished run's, greedy and without hints.

The table goes to the terminal, the same as JSON to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

from cluster.config import Config, ConfigError, load, load_run
from cluster.evaluate import Levels, by_level, evaluate, fault_of, is_failed
from cluster.placement import place_actors, tasks
from cluster.preflight import check
from cluster.session import session


def main(arguments: argparse.Namespace) -> int:
    """Exit status 2 where it could not start."""
    try:
        config = _config(Path(arguments.config), arguments.overrides)
        model = check(config, trains=False)
        with session(config.cluster):
            levels = asyncio.run(_evaluate(config, model, split=arguments.split))
    except ConfigError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    for line in table(levels):
        print(line, file=sys.stderr)
    print(json.dumps({level: {**asdict(result), "interval": result.interval} for level, result in levels.items()}, indent=1))
    return 0


def table(levels: Levels) -> Iterator[str]:
    """A line a level, with Wilson's 95 % interval, and their mean where there are several."""
    for level, result in levels.items():
        low, high = result.interval
        share = f"{result.success:6.1%} ({low:.1%} to {high:.1%})"
        rest = f"Solve-F1 {result.solve_f1:.2f}, mean reward {result.reward:.2f}"
        yield f"{level:14} {share:26} of {result.num_tasks} tasks, {rest}"
    if len(levels) > 1:
        success, f1 = (fmean(values) for values in zip(*((one.success, one.solve_f1) for one in levels.values()), strict=True))
        yield f"{'mean':14} {success:6.1%}, Solve-F1 {f1:.2f}"


def _config(path: Path, overrides: list[str]) -> Config:
    if path.is_file() or path.suffix == ".yaml":
        return load(path, overrides)
    config = load_run(path, overrides)
    model = path.absolute() / "model"
    if not model.is_dir():
        raise ConfigError(f"{path} has no model folder, for its run has not ended; go on with: tiltyard train --resume {path}")
    return replace(config, actors=replace(config.actors, model=str(model)))


async def _evaluate(config: Config, model: str, *, split: str) -> Levels:
    engines, actors = place_actors(config, model)
    pools = tasks(config, split, most=config.cluster.num_test_tasks)
    try:
        await engines.ready()
        groups = await evaluate(actors, [task for pool in pools.values() for task in pool], stage=split)
        for group in filter(is_failed, groups):
            print(f"left out, a fault: {fault_of(group)}", file=sys.stderr)
        return by_level(groups)
    finally:
        with suppress(Exception):
            await asyncio.wait_for(engines.close(), 10)
