"""The real DeepSpeed against plain PyTorch, one rank against two, and a resumed run against one that never stopped."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from learner import cpu_layers
from learner.batch import Microbatch
from learner.config import LearnerConfig
from learner.deepspeed_learner import DeepSpeedLearner, LearnerPlace
from learner.forward import action_logprobs
from learner.loss import Targets, policy_loss
from learner.publish import read
from learner.weights import Weights

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
VOCAB = 64
# The gradients of these batches are far below 1: clipping must act, or the tests would not see it.
BASE = LearnerConfig(learning_rate=1e-2, max_grad_norm=0.05, warmup_steps=2, weight_decay=0.1, dither=False)


@dataclass(frozen=True)
class Job:
    """What one rank does: from `load` on, updates `first` to `last`, saving into `save` after two."""

    config: LearnerConfig
    model: str
    folder: str
    rendezvous: str
    rank: int
    first: int
    last: int
    save: str = ""
    load: str = ""


def microbatch(seed: int, num_tokens: int, num_actions: int) -> Microbatch:
    random = np.random.default_rng(seed)
    return Microbatch(
        tokens_T=random.integers(0, VOCAB, num_tokens),
        positions_T=np.arange(num_tokens),
        segments_S3=np.asarray([[0, num_tokens, -1]]),
        sources_A=np.arange(num_tokens - num_actions - 1, num_tokens - 1),
        targets_A=random.integers(0, VOCAB, num_actions),
        logprobs_A=np.full(num_actions, -np.log(VOCAB), np.float32),
        advantages_A=random.normal(size=num_actions).astype(np.float32),
        temperatures_A=np.ones(num_actions, np.float32),
        weights_A=np.full(num_actions, 1 / 24, np.float32),
        imitated_A=np.arange(num_actions) % 4 == 3,
    )


def batch(step: int) -> list[Microbatch]:
    """Four microbatches of unlike sizes; the last is padding."""
    return [microbatch(10 * step + i, n, a) for i, (n, a) in enumerate([(24, 12), (9, 4), (17, 8), (1, 0)])]


async def work(job: Job) -> tuple[dict[str, float], Weights]:
    place = LearnerPlace(job.rank, job.config.num_ranks, job.rendezvous, 1)
    learner = DeepSpeedLearner(job.config, place, model=job.model, folder=job.folder, seed=0)
    if job.load:
        await learner.load(job.load)
    metrics: dict[str, float] = {}
    for step in range(job.first, job.last):
        torch.rand(1), np.random.rand(1)
        metrics = dict(await learner.update(batch(step)[job.rank :: job.config.num_ranks]))
        if job.save and step == 1:
            await learner.save(job.save)
    metrics["torch"], metrics["numpy"] = float(torch.rand(1)), float(np.random.rand(1)[0])
    return metrics, await learner.publish()


def run(home: Path, name: str, config: LearnerConfig, **changes: str | int) -> tuple[list[dict[str, float]], Weights]:
    """Each rank's metrics, and rank 0's receipt. Where there are two ranks, each has a process of its own."""
    job = Job(config, str(home / "model"), str(home / name), f"file://{home}/{name}.meet", 0, 0, 4)
    jobs = [replace(job, **changes, rank=rank) for rank in range(config.num_ranks)]
    if len(jobs) == 1:
        metrics, weights = asyncio.run(work(jobs[0]))
        return [metrics], weights
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(job))],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for job in jobs
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert all(process.returncode == 0 for process in processes), b"\n".join(error[-3000:] for _, error in outputs)
    answers = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    return [answer["metrics"] for answer in answers], Weights(**answers[0]["weights"])


def config(ranks: int, stage: int) -> LearnerConfig:
    return replace(BASE, num_ranks=ranks, zero_stage=stage)


@lru_cache
def whole(home: Path, ranks: int, stage: int) -> tuple[list[dict[str, float]], Weights]:
    """Four updates without a stop, saved after the second."""
    saved = home / f"saved-{ranks}-{stage}"
    saved.mkdir()
    return run(home, f"whole-{ranks}-{stage}", config(ranks, stage), save=str(saved))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("learner")
    shape = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(shape).bfloat16().save_pretrained(path / "model")
    return path


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference, in units of the largest weight change that four such steps can make."""
    assert found.keys() == expected.keys()
    most = max(float((found[name].float() - expected[name].float()).abs().max()) for name in expected)
    return most / (4 * BASE.learning_rate)


def reference(folder: Path, num_steps: int) -> tuple[dict[str, torch.Tensor], float]:
    """Plain PyTorch: bf16 weights, fp32 gradients and master weights, AdamW, clipping. Weights and last gradient norm."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).train()
    cpu_layers.install(model)  # in bf16 they round otherwise than the model's own, which Adam's first steps make large
    masters = [parameter.detach().float() for parameter in model.parameters()]
    betas = (BASE.betas[0], BASE.betas[1])
    optimizer = torch.optim.AdamW(masters, lr=BASE.learning_rate, betas=betas, weight_decay=BASE.weight_decay)
    norm = torch.tensor(0.0)
    for step in range(num_steps):
        for master in masters:
            master.grad = torch.zeros_like(master)
        for micro in batch(step):
            model.zero_grad()
            logprobs_A, _ = action_logprobs(model, micro)
            loss, _ = policy_loss(logprobs_A, Targets.of(micro), clip_low=0.2, clip_high=0.28, max_weight=2.0)
            loss.backward()
            for master, parameter in zip(masters, model.parameters(), strict=True):
                master.grad += parameter.grad.float()
        norm = torch.nn.utils.clip_grad_norm_(masters, BASE.max_grad_norm)
        optimizer.param_groups[0]["lr"] = BASE.learning_rate * min(1.0, (step + 1) / 2)
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}, float(norm)


def test_one_rank_equals_plain_pytorch(home):
    (metrics,), weights = whole(home, 1, 1)
    expected, norm = reference(home / "model", 4)
    start, _ = reference(home / "model", 0)
    assert distance(start, expected) > 0.5
    assert distance(dict(read(weights)), expected) < 0.02
    assert metrics["learner/grad_norm"] == pytest.approx(norm, rel=0.01) and norm > BASE.max_grad_norm
    assert metrics["learner/lr"] == BASE.learning_rate and metrics["learner/tokens"] == 51
    assert metrics["learner/skipped_steps"] == 0 and weights.version == 4


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_ranks_equal_one(home, stage):
    metrics, weights = whole(home, 2, stage)
    (alone,), expected = whole(home, 1, 1)
    assert distance(dict(read(weights)), dict(read(expected))) < 0.02
    for name in ("learner/loss", "learner/grad_norm", "learner/entropy", "learner/logprob_gap", "learner/tokens"):
        values = [metrics[0][name], metrics[1][name]]
        assert values == pytest.approx([alone[name]] * 2, rel=0.01, abs=1e-4), name


@pytest.mark.parametrize(("ranks", "stage"), [(1, 1), (2, 1), (2, 2), (2, 3)])
def test_a_resumed_run_equals_one_that_never_stopped(home, ranks, stage):
    metrics, expected = whole(home, ranks, stage)
    load = str(home / f"saved-{ranks}-{stage}")
    resumed, found = run(home, f"resumed-{ranks}-{stage}", config(ranks, stage), first=2, load=load)
    assert (found.version, found.checksum) == (expected.version, expected.checksum)
    for rank in range(ranks):
        for random in ("torch", "numpy"):
            assert resumed[rank][random] == metrics[rank][random]


def test_another_zero_stage_is_refused(home):
    whole(home, 1, 1)
    with pytest.raises(ValueError, match="saved with learner.zero_stage=1, not 2"):
        run(home, "refused", config(1, 2), load=str(home / "saved-1-1"))


SMALL = {"learning_rate": 5e-5, "warmup_steps": 0}  # a step of the format is five times what four updates come to


@pytest.fixture(scope="module")
def exact(home):
    """Weights that moved in float32; how many ranks moved them makes no difference, as tests above show."""
    return run(home, "exact", replace(config(1, 1), **SMALL, dtype="float32"))[1]


@pytest.mark.parametrize(("ranks", "stage", "dither"), [(1, 1, True), (2, 2, True), (2, 3, True), (1, 1, False)])
def test_dithered_masters_let_16_bit_weights_follow_small_updates(home, exact, ranks, stage, dither):
    """As far as float32 weights move, along their way."""
    _, found = run(home, f"small-{ranks}-{stage}-{dither}", replace(config(ranks, stage), **SMALL, dither=dither))
    start, _ = reference(home / "model", 0)
    there, here = (torch.cat([(x.float() - start[n]).flatten() for n, x in read(weights)]) for weights in (exact, found))
    followed = float(here @ there / (there @ there))
    assert 0.9 < followed < 1.1 if dither else followed < 0.5


def test_kl_holds_the_policy_back(home):
    (metrics,), free = run(home, "free", replace(BASE, kl=1e-9, max_grad_norm=10.0))
    (held,), weights = run(home, "held", replace(BASE, kl=100.0, max_grad_norm=10.0, activation_checkpointing=True))
    assert 0 < held["learner/kl"] < 0.9 * metrics["learner/kl"]
    assert free.checksum != weights.checksum


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    done, receipt = asyncio.run(work(Job(**{**given, "config": LearnerConfig(**given["config"])})))
    print("\n" + json.dumps({"metrics": done, "weights": asdict(receipt)}))
