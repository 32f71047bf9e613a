from __future__ import annotations

from pathlib import Path

import pytest
import torch

from envs.types import Assignment, Group, Message, Observation, Stop, Task, Trajectory, Turn
from learner.batch import Batch, assemble
from learner.credit import grpo
from learner.learner import Learner
from learner.publish import verify
from learner.tiny_learner import TinyLearner

torch.set_num_threads(1)  # a model this small only waits for its threads

VOCAB, GOOD = 8, 5


def make(folder: Path, seed: int = 0) -> TinyLearner:
    return TinyLearner(VOCAB, 0.05, seed=seed, folder=str(folder))


def sampled(learner: TinyLearner, generator: torch.Generator, num_ranks: int = 1) -> Batch:
    """A batch of one group: eight single tokens after token 1, of which GOOD alone is paid."""
    scores = learner.logprobs(torch.tensor([1])).detach()[0]
    actions = torch.multinomial(scores.exp(), 8, replacement=True, generator=generator).tolist()
    trajectories = [
        Trajectory(
            "a",
            "t",
            (Turn((1,), (action,), (float(scores[action]),), (), Message("assistant", ""), Observation(())),),
            Stop.DONE,
            reward=float(action == GOOD),
        )
        for action in actions
    ]
    task = Task("t", "shop", "easy", (), (), {}, ())
    group = Group(Assignment(0, task, "one", 0.0, "solve", 8), tuple(trajectories))
    return assemble([group], grpo, num_ranks=num_ranks)


def paid(learner: TinyLearner) -> float:
    return float(learner.logprobs(torch.tensor([1]))[0, GOOD].exp().detach())


async def test_it_learns_what_is_paid(tmp_path: Path):
    learner, generator = make(tmp_path), torch.Generator().manual_seed(0)
    before = paid(learner)
    for _ in range(60):
        metrics = await learner.update(sampled(learner, generator))
    assert before < 0.5 and paid(learner) > 0.9
    assert metrics["learner/logprob_gap"] == pytest.approx(0, abs=1e-6)
    assert all(name.startswith("learner/") for name in metrics)


async def test_equal_seeds_and_batches_give_equal_weights_on_any_number_of_ranks(tmp_path: Path):
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    for learner, num_ranks in ((one, 1), (other, 3)):
        await learner.update(sampled(learner, torch.Generator().manual_seed(1), num_ranks))
    assert paid(one) == pytest.approx(paid(other), rel=1e-4)
    assert paid(one) != pytest.approx(paid(make(tmp_path)), rel=1e-2)


async def test_publications_verify_and_count_updates(tmp_path: Path):
    learner: Learner = make(tmp_path)
    first = await learner.publish()
    await learner.update(sampled(make(tmp_path), torch.Generator().manual_seed(0)))
    second = await learner.publish()
    verify(second)
    assert (first.version, second.version) == (0, 1) and first.checksum != second.checksum


async def test_a_loaded_learner_goes_on_bit_for_bit(tmp_path: Path):
    learner = make(tmp_path)
    batches = [sampled(learner, torch.Generator().manual_seed(seed)) for seed in range(4)]
    for batch in batches[:2]:
        await learner.update(batch)
    await learner.save(str(tmp_path / "saved"))
    resumed = make(tmp_path, seed=9)
    await resumed.load(str(tmp_path / "saved"))
    for batch in batches[2:]:
        assert await learner.update(batch) == await resumed.update(batch)
    assert paid(learner) == paid(resumed)
    assert (await resumed.publish()).version == 4
