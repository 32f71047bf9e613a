"""From groups to what one optimiser step eats. Axes: L tokens of a trajectory, T unique ones, S segments, A trained actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from envs.types import Author, Group, Trajectory
from learner.credit import EPSILON, Credit
from learner.tree import build, pack

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A trajectory made flat. Off the mask logprobs and advantages are 0, temperatures 1: where imitated, on it too."""

    tokens_L: Ints
    mask_L: NDArray[np.bool_]
    logprobs_L: Floats
    advantages_L: Floats
    temperatures_L: Floats
    is_imitated: bool = False

    @property
    def num_actions(self) -> int:
        return int(self.mask_L.sum())

    def cut(self, mask_L: NDArray[np.bool_]) -> Sample:
        """As far as another mask's last action, with that mask."""
        end = int(np.flatnonzero(mask_L)[-1]) + 1
        logprobs_L, advantages_L, temperatures_L = self.logprobs_L[:end], self.advantages_L[:end], self.temperatures_L[:end]
        return Sample(self.tokens_L[:end], mask_L[:end], logprobs_L, advantages_L, temperatures_L, self.is_imitated)


@dataclass(frozen=True, slots=True, eq=False)
class Microbatch:
    """One forward pass over a forest of samples.

    `positions_T` is the depth of a token in its path. Rows of `segments_S3` are (start, stop, parent segment or -1);
    they tile 0..T in order, parents before children. The logits at T-index `sources_A` predict the token ids
    `targets_A`, which the engine sampled at `temperatures_A` with `logprobs_A`. `weights_A` are each action's share of the
    whole batch, those left out included.
    """

    tokens_T: Ints
    positions_T: Ints
    segments_S3: Ints
    sources_A: Ints
    targets_A: Ints
    logprobs_A: Floats
    advantages_A: Floats
    temperatures_A: Floats
    weights_A: Floats
    imitated_A: NDArray[np.bool_]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens_T)

    @property
    def num_actions(self) -> int:
        return len(self.targets_A)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`shards[rank]` are that rank's microbatches, as many for every rank; a padding one has a token and no action."""

    shards: tuple[tuple[Microbatch, ...], ...]
    num_tokens: int
    num_actions: int


def flatten(trajectory: Trajectory, advantages: Sequence[float], *, is_imitated: bool = False) -> Sample:
    """Join the turns; the mask is true exactly on action tokens. `advantages` has one number per turn.

    An expert's turn is masked unless its advantage says to train on it: it has no log-probabilities to correct by. What is
    imitated needs none, and is fitted by the bare model, whatever temperature it was sampled at.
    """
    if len(advantages) != len(trajectory.turns):
        raise ValueError(f"trajectory {trajectory.id!r}: {len(advantages)} advantages for {len(trajectory.turns)} turns")
    tokens_L = np.fromiter(
        (token for turn in trajectory.turns for part in (turn.context, turn.action) for token in part), np.int64
    )
    mask_L, temperatures_L = np.zeros(len(tokens_L), np.bool_), np.ones(len(tokens_L), np.float32)
    logprobs_L, advantages_L = np.zeros((2, len(tokens_L)), np.float32)
    stop = 0
    for turn, advantage in zip(trajectory.turns, advantages, strict=True):
        is_policy = turn.author is Author.POLICY
        if is_policy and len(turn.logprobs) != len(turn.action):
            raise ValueError(f"trajectory {trajectory.id!r}: {len(turn.logprobs)} logprobs for {len(turn.action)} tokens")
        start = stop + len(turn.context)
        stop = start + len(turn.action)
        if is_policy and not is_imitated:
            logprobs_L[start:stop], temperatures_L[start:stop] = turn.logprobs, turn.temperature
        if is_policy or advantage:
            mask_L[start:stop], advantages_L[start:stop] = True, advantage
    if len(mask_L) and mask_L[0]:
        raise ValueError(f"trajectory {trajectory.id!r} begins with an action: nothing predicts its first token")
    return Sample(tokens_L, mask_L, logprobs_L, advantages_L, temperatures_L, is_imitated)


def assemble(
    groups: Sequence[Group],
    credit: Credit,
    *,
    num_ranks: int = 1,
    max_tokens: int = 1536,
    aggregation: str = "token",
    full: int = 0,
    every_action: bool = False,
    normalize: bool = False,
    imitates: Callable[[Group], bool] = lambda group: False,
) -> Batch:
    """Advantages, flattening, weights and packing. ValueError where groups hold nothing to train on.

    Without any group (none had signal) the batch is empty: an update with it changes nothing, and is counted.
    Actions without advantage have no gradient in any loss of `learner.loss`: they are left out, and so are the tokens
    after a sample's last action that has one, unless `every_action` is asked for (a penalty towards the initial model).
    A batch of fewer groups than `full` counts for less: the groups left out had no signal, and no gradient to give.
    `normalize` brings the advantages to mean 0 and standard deviation 1 over the batch's actions.
    `aggregation` "token" weighs every action token alike; "sequence" every trajectory, its tokens alike within it.
    """
    if not groups:
        return Batch(((),) * num_ranks, 0, 0)
    samples = _samples(groups, credit, imitates)
    if normalize:
        samples = _normalized(samples)
    lengths = [sample.num_actions for sample in samples]
    total = min(1.0, len(groups) / full) if full else 1.0
    if aggregation == "token":
        weights = [total / sum(lengths)] * len(samples)
    elif aggregation == "sequence":
        weights = [total / (len(samples) * length) for length in lengths]
    else:
        raise ValueError(f"no aggregation is called {aggregation!r}: choose token or sequence")
    if not every_action:
        samples, weights = _telling(samples, weights)
    parts = pack([sample.tokens_L for sample in samples], max_tokens, multiple=num_ranks)
    microbatches = [_microbatch([samples[i] for i in part], [weights[i] for i in part]) for part in parts]
    counts = [(micro.num_tokens, micro.num_actions) for micro in microbatches]
    return Batch(_deal(microbatches, num_ranks), *map(sum, zip(*counts, strict=True)))


def _samples(groups: Sequence[Group], credit: Credit, imitates: Callable[[Group], bool]) -> list[Sample]:
    samples = [
        flatten(trajectory, advantages, is_imitated=imitates(group))
        for group in groups
        for trajectory, advantages in zip(group.trajectories, credit(group), strict=True)
        if advantages
    ]
    samples = [sample for sample in samples if sample.num_actions]
    if not samples:
        raise ValueError(f"{len(groups)} groups hold no action token to train on: take groups with sound trajectories")
    return samples


def _normalized(samples: Sequence[Sample]) -> list[Sample]:
    """Advantages of mean 0 and std 1 over all actions (REINFORCE++, arXiv 2501.03262); all 0 where they are all alike."""
    values = np.concatenate([sample.advantages_L[sample.mask_L] for sample in samples]).astype(np.float64)
    mean, std = values.mean(), values.std()
    if std <= EPSILON:
        return [replace(sample, advantages_L=np.zeros_like(sample.advantages_L)) for sample in samples]
    scaled = (np.where(sample.mask_L, (sample.advantages_L - mean) / std, 0.0).astype(np.float32) for sample in samples)
    return [replace(sample, advantages_L=advantages_L) for sample, advantages_L in zip(samples, scaled, strict=True)]


def _telling(samples: Sequence[Sample], weights: Sequence[float]) -> tuple[list[Sample], list[float]]:
    """The samples cut after their last action with an advantage, others off the mask; all as they are where none has one."""
    pairs = zip(samples, weights, strict=True)
    telling = ((sample, sample.mask_L & (sample.advantages_L != 0), weight) for sample, weight in pairs)
    kept = [(sample.cut(mask_L), weight) for sample, mask_L, weight in telling if mask_L.any()]
    if not kept:
        return list(samples), list(weights)
    return [sample for sample, _ in kept], [weight for _, weight in kept]


def _microbatch(samples: Sequence[Sample], weights: Sequence[float]) -> Microbatch:
    forest = build([sample.tokens_L for sample in samples])
    places = [np.flatnonzero(sample.mask_L) for sample in samples]
    rows = list(zip(samples, places, strict=True))
    return Microbatch(
        tokens_T=forest.tokens_T,
        positions_T=forest.positions_T,
        segments_S3=forest.segments_S3,
        sources_A=np.concatenate([path[at - 1] for path, at in zip(forest.paths, places, strict=True)]),
        targets_A=np.concatenate([sample.tokens_L[at] for sample, at in rows]),
        logprobs_A=np.concatenate([sample.logprobs_L[at] for sample, at in rows]),
        advantages_A=np.concatenate([sample.advantages_L[at] for sample, at in rows]),
        temperatures_A=np.concatenate([sample.temperatures_L[at] for sample, at in rows]),
        weights_A=np.repeat(np.asarray(weights, np.float32), [len(at) for at in places]),
        imitated_A=np.repeat([sample.is_imitated for sample in samples], [len(at) for at in places]),
    )


def _padding() -> Microbatch:
    none, nothing = np.empty(0, np.int64), np.empty(0, np.float32)
    zero, segment = np.zeros(1, np.int64), np.asarray([[0, 1, -1]], np.int64)
    return Microbatch(zero, zero, segment, none, none, nothing, nothing, nothing, nothing, np.empty(0, np.bool_))


def _deal(microbatches: Sequence[Microbatch], num_ranks: int) -> tuple[tuple[Microbatch, ...], ...]:
    # Ranks that ran unequal numbers of forwards would wait for ever in each other's collectives.
    each = -(-len(microbatches) // num_ranks)
    full = [*microbatches, *(_padding() for _ in range(each * num_ranks - len(microbatches)))]
    full.sort(key=lambda micro: -micro.num_tokens)
    # There and back again, as teams are picked: the ranks' sums stay close.
    rounds = [
        full[start : start + num_ranks][:: 1 if index % 2 == 0 else -1]
        for index, start in enumerate(range(0, len(full), num_ranks))
    ]
    return tuple(tuple(cards[rank] for cards in rounds) for rank in range(num_ranks))
