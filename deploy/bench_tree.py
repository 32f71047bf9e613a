"""Shared prefixes computed once against the same trajectories packed side by side, both by the real learner."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.config import Config
from deploy.figure import OUT, Figure
from deploy.oracle_groups import groups
from envs.environment import environment
from envs.types import Assignment, Group, Message, Observation, Span, Stop, Task, Trajectory, Turn
from learner.batch import Batch, Microbatch, assemble
from learner.learner import Learner

ROUNDS = 3
VOCABULARY = 40_000


@dataclass(frozen=True, slots=True)
class Case:
    """The same trajectories packed in two ways."""

    tree: Batch
    packed: Batch

    @property
    def ideal(self) -> float:
        """All tokens over unique tokens."""
        return self.packed.num_tokens / self.tree.num_tokens


def cases(config: Config, model: str) -> Mapping[str, Case]:
    """Eight siblings of 1,000 tokens that share 90 %, and none; oracle trajectories of three environments."""
    folder = OUT / "constructed"
    command = [sys.executable, "-m", "cluster.cli", "construct", "--count", "40", "--out", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    built = environment(f"constructed:{folder}").taskset("train", "parallel_multi_hop")
    shortest = min(environment("bfcl").taskset("train", "base"), key=lambda task: len(str(task.tools)) + len(task.truth))
    found = {
        "siblings": siblings(900, 100),
        "unshared": siblings(0, 1000),
        "shop": groups(config, model)[:2],
        "constructed": groups(config, model, built[:2]),
        "bfcl": groups(config, model, [shortest]),
    }
    return {f"tree-{name}": _case(made, config.learner.max_tokens) for name, made in found.items()}


async def bench_tree(config: Config, model: str, learner: Learner) -> None:
    """The speed-up by sharing over the ideal one, in paired rounds."""
    for name, case in cases(config, model).items():
        pairs = [(await _seconds(learner, case.packed), await _seconds(learner, case.tree)) for _ in range(ROUNDS + 1)][1:]
        speed_up = statistics.median(packed / tree for packed, tree in pairs)
        Figure(name, speed_up, case.ideal, "times", 0.8 if case.ideal > 1.01 else 0.97).tell()


def siblings(shared: int, own: int) -> list[Group]:
    """A group of eight with one turn each: `shared` tokens alike in all, then `own` of each, the last 100 sampled."""
    draw = random.Random(0)
    prompt = _tokens(draw, shared)
    made = []
    for number in range(8):
        context, action = (*prompt, *_tokens(draw, own - 100)), _tokens(draw, 100)
        said, seen = Message("assistant", ""), Observation((), True)
        turn = Turn(context, action, (-0.5,) * 100, (Span(0, 0, 100),), said, seen)
        made.append(Trajectory(f"0-{number}", "synthetic", (turn,), Stop.DONE, reward=float(number % 2)))
    task = Task("synthetic", "shop", "1", (), (), {}, ())
    return [Group(Assignment(0, task, "bench", 0.0, "progress", 8), tuple(made))]


def _tokens(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randrange(VOCABULARY) for _ in range(count))


def _case(found: Sequence[Group], max_tokens: int) -> Case:
    return Case(assemble(found, _all_alike, max_tokens=max_tokens), _side_by_side(found, max_tokens))


def _all_alike(group: Group) -> tuple[tuple[float, ...], ...]:
    return tuple((1.0,) * len(one.turns) for one in group.trajectories)


def _side_by_side(found: Sequence[Group], max_tokens: int) -> Batch:
    """Each trajectory whole, as many to a microbatch as fit, none seeing another."""
    micros: list[Microbatch] = []
    for one in (replace(group, trajectories=(one,)) for group in found for one in group.trajectories):
        alone = assemble([one], _all_alike, max_tokens=max_tokens).shards[0][0]
        if micros and micros[-1].num_tokens + alone.num_tokens <= max_tokens:
            alone = _joined(micros.pop(), alone)
        micros.append(alone)
    return Batch((tuple(micros),), sum(micro.num_tokens for micro in micros), sum(micro.num_actions for micro in micros))


def _joined(left: Microbatch, right: Microbatch) -> Microbatch:
    moved = right.segments_S3 + left.num_tokens
    parents = right.segments_S3[:, 2]
    moved[:, 2] = np.where(parents < 0, -1, parents + len(left.segments_S3))

    def both(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([a, b])

    return Microbatch(
        tokens_T=both(left.tokens_T, right.tokens_T),
        positions_T=both(left.positions_T, right.positions_T),
        segments_S3=both(left.segments_S3, moved),
        sources_A=both(left.sources_A, right.sources_A + left.num_tokens),
        targets_A=both(left.targets_A, right.targets_A),
        logprobs_A=both(left.logprobs_A, right.logprobs_A),
        advantages_A=both(left.advantages_A, right.advantages_A),
        temperatures_A=both(left.temperatures_A, right.temperatures_A),
        weights_A=both(left.weights_A, right.weights_A),
        imitated_A=both(left.imitated_A, right.imitated_A),
    )


async def _seconds(learner: Learner, batch: Batch) -> float:
    """Of the passes alone: the optimiser's step is the same for both."""
    metrics = await learner.update(batch)
    return metrics["learner/seconds"] - metrics["learner/step_seconds"]
