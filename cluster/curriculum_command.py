"""`tiltyard curriculum`: which stage when and why, and which tasks are solved, stuck or were never tried."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean

from cluster.config import ConfigError, load_run
from cluster.metrics import StepReport, read_history
from cluster.placement import tasks
from cluster.simulations import simulations, told
from cluster.store import read
from envs.types import Task

STATES = ("solved", "partly", "stuck", "failed once", "never tried")
SOLVED, STUCK_AFTER, SHOWN = 0.75, 2, 5  # share of the last group; groups without success; how many are named


@dataclass(frozen=True, slots=True)
class Tries:
    """What became of one task: the success of each of its groups in their order, those begun on the reference's way left out."""

    task_id: str
    level: str
    groups: tuple[float, ...] = ()

    @property
    def state(self) -> str:
        if not self.groups:
            return "never tried"
        if self.groups[-1] >= SOLVED:
            return "solved"
        if any(self.groups):
            return "partly"
        return "stuck" if len(self.groups) >= STUCK_AFTER else "failed once"


def main(arguments: argparse.Namespace) -> int:
    """Exit status 2 where the folder holds no run."""
    folder = Path(arguments.run)
    try:
        config = load_run(folder)
    except ConfigError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    of_tasks = outcomes(tries(folder, tasks(config, "train")))
    for line in (*stages(read_history(folder).steps), "", *of_tasks, *told(simulations(folder))):
        print(line)
    return 0


def stages(steps: Sequence[StepReport]) -> Iterator[str]:
    """A paragraph for each stage that was entered."""
    if not steps:
        yield "no step was done yet"
    for stage, group in groupby(steps, key=lambda step: step.stage):
        own = list(group)
        yield f"steps {own[0].step} to {own[-1].step}: {stage}"
        yield f"    because {own[0].stage_reason}"
        rewards = [step.metrics["rewards/mean"] for step in own if "rewards/mean" in step.metrics]
        if rewards:
            yield f"    mean reward {rewards[0]:.2f} at first, {rewards[-1]:.2f} at last, {fmean(rewards):.2f} throughout"


def tries(folder: Path, pools: Mapping[str, Sequence[Task]]) -> list[Tries]:
    """Every training task of the levels that the run drew from, with its groups."""
    columns = ("assignment_id", "task_id", "level", "success", "authors", "stop")
    rows = [row for row in read(folder, columns=columns, split="train").to_pylist() if row["stop"] != "fault"]
    whole = sorted((row for row in rows if "expert" not in row["authors"]), key=lambda row: row["assignment_id"])
    found: dict[str, list[float]] = {}
    for _, group in groupby(whole, key=lambda row: row["assignment_id"]):
        siblings = list(group)
        found.setdefault(siblings[0]["task_id"], []).append(fmean(row["success"] for row in siblings))
    drawn = {row["level"] for row in rows}
    return [Tries(t.id, level, tuple(found.get(t.id, ()))) for level, pool in pools.items() if level in drawn for t in pool]


def outcomes(found: Sequence[Tries]) -> Iterator[str]:
    """Tasks by level and state, then those longest stuck."""
    yield f"{'tasks':20}" + "".join(f"{state:>13}" for state in STATES)
    for level, group in groupby(found, key=lambda one: one.level):
        counts = Counter(one.state for one in group)
        yield f"level {level:14}" + "".join(f"{counts[state]:13}" for state in STATES)
    stuck = sorted((one for one in found if one.state == "stuck"), key=lambda one: -len(one.groups))
    if stuck:
        yield f"longest stuck: {', '.join(f'{one.task_id} ({len(one.groups)} groups)' for one in stuck[:SHOWN])}"
    yield f"solved: at least {SOLVED:.0%} of the last group succeeded; stuck: none in {STUCK_AFTER} groups or more"
