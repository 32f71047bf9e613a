"""`make compare`: experiments that differ in one thing, each with the same seeds, as a table and a picture.

usage: python -m deploy.compare FOLDER [SEED ...] [key=value ...]     seeds 0, 1 and 2 without any
Every YAML of FOLDER is an arm. Runs that have ended are not run again, so that it can be stopped and called again; their
checkpoints, of which fifteen runs fill a disk, are removed. Writes docs/results/<folder>.md and .png.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure as Plot

from cluster.config import load
from cluster.metrics import read_history, wilson
from cluster.preflight import check
from cluster.simulations import sampled, simulations
from learner.checkpoint import latest

RUNS, OUT = Path("runs/compare"), Path("docs/results")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: on the test tasks by level success and Solve-F1; mean validation success over trajectories.

    Before training they may not have been played, and are None.
    """

    after: Mapping[str, float]
    before: Mapping[str, float | None]
    num_tasks: int
    curve: tuple[tuple[float, float], ...]
    simulations: int
    tokens: int
    through_states: float
    wall_s: float
    f1_before: Mapping[str, float | None]
    f1_after: Mapping[str, float]


def train(arm: Path, seed: int, overrides: Sequence[str], *, test_before: bool) -> Outcome:
    """`test_before`: of a seed's arms, which all start from the same policy, one plays the test tasks before as well."""
    name = _name(arm, seed)
    folder = RUNS / name
    if not (folder / "summary.json").is_file():
        resume = ["--resume", str(folder)] if latest(folder / "checkpoints") else []
        if not resume:  # what was stopped before its first step
            shutil.rmtree(folder, ignore_errors=True)
        own = [f"name={name}", f"seed={seed}", f"cluster.runs={RUNS}", f"cluster.test_before={test_before}"]
        told = [] if resume else [str(arm), *overrides, *own]
        _run(["train", *resume, *told])
    if not (folder / "summary.json").is_file():
        sys.exit(f"{name} was stopped; the same command goes on with it")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return outcome(folder)


def _name(arm: Path, seed: int) -> str:
    return f"{arm.parent.name}-{arm.stem}-{seed}"


def _run(arguments: Sequence[str]) -> None:
    """Ctrl-C is left to the run, which stops with a checkpoint; else it would be killed a quarter of a second after."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        if subprocess.run([sys.executable, "-m", "cluster.cli", *arguments]).returncode:
            sys.exit(1)  # it has told why
    finally:
        signal.signal(signal.SIGINT, before)


def outcome(folder: Path) -> Outcome:
    summary, history = json.loads((folder / "summary.json").read_text()), read_history(folder)
    played = list(accumulate(step.metrics.get("actors/trajectories", 0.0) for step in history.steps))
    at = {step.step: count for step, count in zip(history.steps, played, strict=True)}
    curve = [(at.get(one.step, 0.0), fmean(level.success for level in one.levels.values())) for one in history.validations]
    levels = summary["levels"]
    return Outcome(
        {name: level["after"] for name, level in levels.items()},
        {name: level["before"] for name, level in levels.items()},
        min(level["num_tasks"] for level in levels.values()),
        tuple(curve),
        *sampled(folder),
        simulations(folder).share_through_states,
        summary["wall_s"],
        {name: level["solve_f1"][0] for name, level in levels.items()},
        {name: level["solve_f1"][1] for name, level in levels.items()},
    )


def table(arms: Mapping[str, Sequence[Outcome]], seeds: Sequence[int]) -> list[str]:
    """Markdown: the mean of the seeds, in brackets Wilson's 95 % interval of their tasks together, then each seed."""
    first = next(iter(arms.values()))[0]
    names = list(first.after)
    has_states = any(one.through_states for found in arms.values() for one in found)
    spent = {arm: _spent(found, has_states=has_states) for arm, found in arms.items()}
    heads = [*(f"level {name}" for name in names), "Solve-F1", "simulations", "tokens sampled"]
    heads += ["only through states"] * has_states
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rows = {"before training": [[one.before[name] for one in first_of(arms)] for name in names]}
    rows |= {arm: [[one.after[name] for one in found] for name in names] for arm, found in arms.items()}
    f1 = {"before training": [fmean(one.f1_before.values()) for one in first_of(arms)]}
    f1 |= {arm: [fmean(one.f1_after.values()) for one in found] for arm, found in arms.items()}
    for arm, columns in rows.items():
        cells = [_cell(shares, first.num_tasks) for shares in columns]
        each = ", ".join(f"{one:.2f}" for one in f1[arm])
        lines.append(f"| {arm} | {' | '.join(cells)} | {fmean(f1[arm]):.2f} ({each}) | {spent.get(arm, ' | ')} |")
    return [f"Seeds {', '.join(map(str, seeds))}; {first.num_tasks} test tasks a level, greedy, without hints.", "", *lines]


def _spent(found: Sequence[Outcome], *, has_states: bool) -> str:
    """Means of the seeds; the share of the tasks that were solved from an expert's states and never from the beginning."""
    rows = [(one.simulations, one.tokens, one.through_states) for one in found]
    count, tokens, share = (fmean(column) for column in zip(*rows, strict=True))
    return f"{count:,.0f} | {tokens:,.0f}" + (f" | {share:.0%}" if has_states else "")


def first_of(arms: Mapping[str, Sequence[Outcome]]) -> Sequence[Outcome]:
    return next(iter(arms.values()))


def _cell(shares: Sequence[float], num_tasks: int) -> str:
    mean = fmean(shares)
    low, high = wilson(mean, num_tasks * len(shares))
    return f"{mean:.0%} [{low:.0%}, {high:.0%}] ({', '.join(f'{100 * share:.0f}' for share in shares)})"


def plot(arms: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Validation success over trajectories: the mean of the seeds, and from the lowest to the highest of them."""
    figure = Plot(figsize=(7, 4))
    axes = figure.subplots()
    for arm, found in arms.items():
        columns = list(zip(*(one.curve for one in found), strict=False))
        x = [fmean(point[0] for point in column) for column in columns]
        shares = [[point[1] for point in column] for column in columns]
        (line,) = axes.plot(x, [fmean(column) for column in shares], label=arm)
        axes.fill_between(x, list(map(min, shares)), list(map(max, shares)), color=line.get_color(), alpha=0.15)
    axes.set_xlabel("training trajectories")
    axes.set_ylabel("validation success, mean of the levels")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main(arguments: Sequence[str]) -> None:
    folder, rest = Path(arguments[0]), arguments[1:]
    overrides = [one for one in rest if "=" in one]
    seeds = [int(one) for one in rest if "=" not in one] or [0, 1, 2]
    paths = sorted(folder.glob("*.yaml"))
    for path in paths:
        if not all((RUNS / _name(path, seed) / "summary.json").is_file() for seed in seeds):
            check(load(path, overrides))
    arms: dict[str, list[Outcome]] = {path.stem: [] for path in paths}
    for number, seed in enumerate(seeds, start=1):  # seed by seed, so that what is there at any time can be compared
        for path in paths:
            arms[path.stem].append(train(path, seed, overrides, test_before=path == paths[0]))
        OUT.mkdir(parents=True, exist_ok=True)
        lines = table(arms, seeds[:number])
        command = f"make compare ARGS={folder}"
        (OUT / f"{folder.name}.md").write_text(
            "\n".join([f"# {folder.name}: `{command}`", "", *lines, "", f"![]({folder.name}.png)", ""])
        )
        plot(arms, OUT / f"{folder.name}.png")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
