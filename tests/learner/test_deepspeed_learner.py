"""The real DeepSpeed against plain PyTorch, one rank against two, and a resumed run against one that never stopped."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from learner.batch import Microbatch
from learner.config import LearnerConfig
from learner.deepspeed_learner import DeepSpeedLearner, LearnerPlace
from learner.forward import action_logprobs
from learner.loss import LOSSES, Targets
from learner.publish import read
from learner.weights import Weights

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
VOCAB = 64
# The gradients of these batches are far below 1: clipping must act, or the tests would not see it.
BASE = LearnerConfig(learning_rate=1e-2, max_grad_norm=0.05, warmup_steps=2, weight_decay=0.1)


@dataclass(frozen=True)
class Job:
    """What one rank does: from `load` on, updates `first` to `last`, then saves where `save` says."""

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
        weights_A=np.full(num_actions, 1 / 24, np.float32),
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
    if job.save:
        await learner.save(job.save)
    metrics["torch"], metrics["numpy"] = float(torch.rand(1)), float(np.random.rand(1)[0])
    return metrics, await learner.publish()


def run(tmp_path: Path, name: str, config: LearnerConfig, **changes: object) -> tuple[list[dict[str, float]], Weights]:
    """Every rank in a process of its own; the metrics of each, and rank 0's receipt."""
    job = Job(config, str(tmp_path / "model"), str(tmp_path / name), f"file://{tmp_path}/{name}.meet", 0, 0, 3)
    jobs = [replace(job, **changes, rank=rank) for rank in range(config.num_ranks)]
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, json.dumps(asdict(job))], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for job in jobs
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert all(process.returncode == 0 for process in processes), b"\n".join(error[-3000:] for _, error in outputs)
    answers = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    return [answer["metrics"] for answer in answers], Weights(**answers[0]["weights"])


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


@pytest.fixture(scope="module")
def one_rank(home) -> tuple[list[dict[str, float]], Weights]:
    return run(home, "one", BASE)


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference, in units of the largest weight change that three such steps can make."""
    assert found.keys() == expected.keys()
    most = max(float((found[name].float() - expected[name].float()).abs().max()) for name in expected)
    return most / (3 * BASE.learning_rate)


def reference(folder: Path, num_steps: int) -> tuple[dict[str, torch.Tensor], float]:
    """Plain PyTorch: bf16 weights, fp32 gradients and master weights, AdamW, clipping. Weights and last gradient norm."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).train()
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
            loss, _ = LOSSES["clipped"](logprobs_A, Targets.of(micro), clip_low=0.2, clip_high=0.28, max_weight=2.0)
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


def test_one_rank_equals_plain_pytorch(home, one_rank):
    (metrics,), weights = one_rank
    expected, norm = reference(home / "model", 3)
    found = dict(read(weights))
    start = {name: value.detach() for name, value in AutoModelForCausalLM.from_pretrained(home / "model").named_parameters()}
    assert distance(start, expected) > 0.5
    assert distance(found, expected) < 0.02
    assert metrics["learner/grad_norm"] == pytest.approx(norm, rel=0.01) and norm > BASE.max_grad_norm
    assert metrics["learner/lr"] == BASE.learning_rate and metrics["learner/tokens"] == 51
    assert weights.version == 3


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_ranks_equal_one(home, one_rank, stage):
    metrics, weights = run(home, f"two-{stage}", replace(BASE, num_ranks=2, zero_stage=stage))
    assert distance(dict(read(weights)), dict(read(one_rank[1]))) < 0.02
    for name in ("learner/loss", "learner/grad_norm", "learner/entropy", "learner/logprob_gap", "learner/tokens"):
        values = [metrics[0][name], metrics[1][name], one_rank[0][0][name]]
        assert values == pytest.approx([values[2]] * 3, rel=0.01, abs=1e-4), name


@pytest.mark.parametrize(("ranks", "stage"), [(1, 1), (2, 1), (2, 2), (2, 3)])
def test_a_resumed_run_equals_one_that_never_stopped(home, ranks, stage):
    config = replace(BASE, num_ranks=ranks, zero_stage=stage)
    name, saved = f"resume-{ranks}-{stage}", str(home / f"saved-{ranks}-{stage}")
    Path(saved).mkdir()
    whole, expected = run(home, f"{name}-whole", config, last=4)
    run(home, f"{name}-a", config, last=2, save=saved)
    resumed, found = run(home, f"{name}-b", config, first=2, last=4, load=saved)
    assert (found.version, found.checksum) == (expected.version, expected.checksum)
    for rank in range(ranks):
        for random in ("torch", "numpy"):
            assert resumed[rank][random] == whole[rank][random]


def test_another_number_of_ranks_is_refused(home, tmp_path):
    (tmp_path / "rank-0.json").write_text('{"num_ranks": 2, "zero_stage": 1}')
    with pytest.raises(AssertionError, match="saved with learner.num_ranks=2, not 1"):
        run(home, "refused", BASE, load=str(tmp_path))


def test_kl_and_activation_checkpointing(home, one_rank):
    config = replace(BASE, kl=0.5, activation_checkpointing=True)
    ((metrics,), _) = run(home, "kl", config, last=2)
    ((plain,), _) = run(home, "plain", BASE, last=2)
    assert metrics["learner/kl"] > 0 and "learner/kl" not in plain


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    done, receipt = asyncio.run(work(Job(**{**given, "config": LearnerConfig(**given["config"])})))
    print("\n" + json.dumps({"metrics": done, "weights": asdict(receipt)}))
