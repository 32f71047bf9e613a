"""`make bench-trl`: one policy, its tasks in one order, lengths, batch and optimiser, by Tiltyard and by TRL, seed by seed.

usage: python -m deploy.bench_trl [SEED ...] [key=value ...]     seeds 0, 1 and 2 without any; writes runs/bench/trl*
Trajectories a second are those of all steps after the first. TRL samples by its own `generate`: its vLLM mode needs a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure as Plot

from cluster.config import Config, load
from cluster.metrics import read_history
from cluster.preflight import check
from cluster.store import read
from deploy.figure import OUT, Figure
from deploy.trl_settings import Settings

CONFIG = Path("deploy/experiments/single.yaml")
MICRO = 8  # TRL's microbatch


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds and mean reward of each step."""

    seconds: tuple[float, ...]
    rewards: tuple[float, ...]

    def rate(self, size: int) -> float:
        """Trajectories a second, `size` of them a step."""
        return size * (len(self.seconds) - 1) / sum(self.seconds[1:])

    @property
    def mean(self) -> float:
        return statistics.fmean(self.rewards)


def ours(seed: int, overrides: Sequence[str]) -> tuple[Curve, list[str]]:
    """The curve, and the ids of the tasks in the order in which they were assigned."""
    name = f"bench-trl-{seed}"
    shutil.rmtree(Path("runs") / name, ignore_errors=True)
    command = [sys.executable, "-m", "cluster.cli", "train", str(CONFIG), *overrides, f"name={name}", f"seed={seed}"]
    subprocess.run([*command, "cluster.runs=runs"], check=True)
    steps = read_history(Path("runs") / name).steps
    shutil.rmtree(Path("runs") / name / "checkpoints", ignore_errors=True)
    rows = read(Path("runs") / name, columns=["assignment_id", "task_id"], split="train").to_pylist()
    tasks = dict(sorted((row["assignment_id"], row["task_id"]) for row in rows))
    curve = Curve(tuple(step.seconds for step in steps), tuple(step.metrics["rewards/mean"] for step in steps))
    return curve, list(tasks.values())


def theirs(config: Config, seed: int, model: str, *, tasks: Sequence[str]) -> Curve:
    learner, stage = config.learner, config.curriculum.stages[0]
    out = OUT / f"trl-run-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        model=str(Path(model).absolute()),
        calls=config.actors.calls,
        level=next(iter(stage.levels)),
        tasks=list(tasks),
        rubric=dict(config.rewards.rubrics[stage.reward]),
        num_steps=learner.num_steps,
        num_groups=learner.groups_per_batch,
        group_size=stage.group_size,
        micro=MICRO,
        max_tokens=config.actors.max_action_tokens,
        temperature=config.actors.temperature,
        learning_rate=learner.learning_rate,
        warmup_steps=learner.warmup_steps,
        betas=list(learner.betas),
        max_grad_norm=learner.max_grad_norm,
        clip_low=learner.clip_low,
        clip_high=learner.clip_high,
        seed=seed,
        out=str(out),
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [".venv-trl/bin/python", "-m", "deploy.trl_peer", json.dumps(asdict(settings))]
    subprocess.run(command, check=True, env=environment, stdout=(out / "log.txt").open("w"), stderr=subprocess.STDOUT)
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    return Curve(tuple(step["seconds"] for step in steps), tuple(step["reward"] for step in steps))


def main(arguments: Sequence[str]) -> None:
    overrides = [argument for argument in arguments if "=" in argument]
    seeds = [int(argument) for argument in arguments if "=" not in argument] or [0, 1, 2]
    config = load(CONFIG, overrides)
    model = check(config)
    size = config.learner.groups_per_batch * config.curriculum.stages[0].group_size
    pairs: list[tuple[Curve, Curve]] = []
    for seed in seeds:
        curve, tasks = ours(seed, overrides)
        pairs.append((curve, theirs(config, seed, model, tasks=tasks)))
        told = {"tiltyard": asdict(pairs[-1][0]), "trl": asdict(pairs[-1][1])}
        (OUT / f"trl-{seed}.json").write_text(json.dumps(told, indent=1))
        for name, curve in zip(told, pairs[-1], strict=True):
            rewards = " ".join(f"{reward:5.2f}" for reward in curve.rewards)
            print(f"seed {seed} {name:9} {curve.rate(size):6.2f} trajectories/s   mean reward by step {rewards}", flush=True)
    rates = [statistics.median(column) for column in zip(*((a.rate(size), b.rate(size)) for a, b in pairs), strict=True)]
    curves = [statistics.fmean(column) for column in zip(*((a.mean, b.mean) for a, b in pairs), strict=True)]
    command = "make bench-trl"
    Figure("trl", rates[0], rates[1], "trajectories/s", 8.0, command).tell()
    Figure("trl-reward", curves[0], curves[1], "mean reward of all steps", 1.0, command).tell()
    plot(pairs, seeds)


def plot(pairs: Sequence[tuple[Curve, Curve]], seeds: Sequence[int]) -> None:
    """Both curves of every seed over trajectories, as OUT/trl.png."""
    figure = Plot(figsize=(6, 4))
    axes = figure.subplots()
    for seed, (first, second) in zip(seeds, pairs, strict=True):
        for name, curve, colour in (("Tiltyard", first, "tab:blue"), ("TRL", second, "tab:orange")):
            axes.plot(range(1, len(curve.rewards) + 1), curve.rewards, color=colour, label=name if seed == seeds[0] else None)
    axes.set_xlabel("step")
    axes.set_ylabel("mean reward of the step's trajectories")
    axes.legend()
    figure.savefig(OUT / "trl.png", dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main(sys.argv[1:])
