"""`make bench`: what the system costs over its own parts, each as a ratio measured in one run.

usage: python -m deploy.bench [engine] [learner] [tree] [publish] [delta] [dither]
All without a name; writes runs/bench/<name>.json.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from actors.engine import Sampling
from actors.renderer import Renderer
from cluster.config import Config, load, weights_folder
from cluster.memory import MemoryPeak
from cluster.placement import place_actors, place_learner
from cluster.preflight import check
from cluster.session import session
from deploy.bench_tree import bench_tree
from deploy.figure import Figure
from deploy.oracle_groups import groups
from envs.environment import environment
from learner.batch import Batch, assemble
from learner.credit import CREDITS
from learner.depot import Depot, Replica
from learner.forward import action_logprobs
from learner.learner import Learner
from learner.loss import Targets, policy_loss
from learner.publish import read

CONFIG = Path("deploy/experiments/shop.yaml")
NUM_PROMPTS, NEW_TOKENS, ROUNDS = 64, 40, 5
GREEDY = Sampling(temperature=0.0, max_tokens=NEW_TOKENS)


def prompts(config: Config, model: str) -> list[list[int]]:
    """The opening tokens of real tasks: they share the tools and examples, as in a run."""
    renderer = Renderer(model, config.actors.calls)
    tasks = environment("shop").taskset("train", "2")[:NUM_PROMPTS]
    return [list(renderer.open(task.messages, task.tools)) for task in tasks]


class RawVLLM:
    """vLLM by itself, in a process of its own that answers one round per line."""

    def __init__(self, config: Config, model: str) -> None:
        engine = config.actors.engine
        settings = json.dumps({"model": model, "max_model_len": engine.max_model_len, "max_num_seqs": engine.max_num_seqs})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.raw_vllm", settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, tokens: Sequence[Sequence[int]]) -> float:
        """Tokens a second of one batch."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"prompts": tokens, "max_tokens": NEW_TOKENS}) + "\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("tokens/s "):
            if not line:
                raise RuntimeError("raw vLLM ended; its error is above")
        return float(line.split()[1])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()  # it ends with its input, and takes vLLM's processes along
        self._process.wait(60)


async def bench_engine(config: Config, model: str) -> None:
    engines, _ = place_actors(config, model)
    await engines.ready()
    raw, tokens = RawVLLM(config, model), prompts(config, model)

    async def ours() -> float:
        begun = time.perf_counter()
        calls = (engines.generate(t, GREEDY, session=f"{n}") for n, t in enumerate(tokens))
        done = await asyncio.gather(*calls)
        return sum(len(completion.tokens) for completion in done) / (time.perf_counter() - begun)

    pairs = [(await ours(), raw(tokens)) for _ in range(ROUNDS + 1)][1:]
    raw.close()
    value, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
    Figure("engine", value, reference, "tokens/s", 0.9).tell()


class PlainLearner:
    """The same update by PyTorch alone: bf16 weights, fp32 master weights, AdamW."""

    def __init__(self, config: Config, model: str) -> None:
        self._limits = config.learner
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).train()
        self._parameters = list(self._model.parameters())
        self._masters = [p.detach().float().requires_grad_() for p in self._parameters]
        self._optimizer = torch.optim.AdamW(self._masters, lr=config.learner.learning_rate, fused=True)

    def update(self, batch: Batch) -> None:
        limits = self._limits
        for micro in batch.shards[0]:
            logprobs, _ = action_logprobs(self._model, micro)
            loss, _ = policy_loss(
                logprobs, Targets.of(micro), clip_low=limits.clip_low, clip_high=limits.clip_high, max_weight=limits.max_weight
            )
            loss.backward()
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                if parameter.grad is not None:
                    gradient = parameter.grad.float()
                    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                    parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self._masters, limits.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                parameter.copy_(master)


def learner(config: Config, model: str) -> Learner:
    rendezvous = f"file:///tmp/tiltyard-bench-{time.time_ns()}"
    return place_learner(config, model, weights=weights_folder(config), rendezvous=rendezvous)


async def bench_learner(config: Config, model: str) -> None:
    ours, limits = learner(config, model), config.learner
    batch = assemble(groups(config, model), CREDITS["grpo"], num_ranks=1, max_tokens=limits.max_tokens, aggregation="token")
    plain, pairs = PlainLearner(config, model), []
    for _ in range(ROUNDS - 1):
        begun = time.perf_counter()
        await ours.update(batch)
        between = time.perf_counter()
        plain.update(batch)
        pairs.append((batch.num_tokens / (between - begun), batch.num_tokens / (time.perf_counter() - between)))
    value, reference = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    Figure("learner", value, reference, "tokens/s", 0.85).tell()


async def bench_publish(config: Config, model: str) -> None:
    ours, (engines, _) = learner(config, model), place_actors(config, model)
    await engines.ready()
    limits = config.learner
    batch = assemble(groups(config, model)[:1], CREDITS["grpo"], num_ranks=1, max_tokens=limits.max_tokens, aggregation="token")
    published, served = [], []
    for _ in range(ROUNDS + 2):
        await ours.update(batch)
        begun = time.perf_counter()
        weights = await ours.publish()
        published.append(time.perf_counter() - begun)
        await engines.load(weights)
        served.append(time.perf_counter() - begun)
    print(f"{'':10} of which written after {statistics.median(published[2:]):.2f} s")
    size_gb = sum(path.stat().st_size for path in Path(model).glob("*.safetensors")) / 1e9
    Figure("publish", statistics.median(served[2:]), size_gb, "s for reference GB", None).tell()


async def bench_delta(config: Config, model: str) -> None:
    """What a depot is sent after one optimiser step, over the whole; and the seconds of sending and bringing it."""
    ours, limits = learner(config, model), config.learner
    batch = assemble(groups(config, model), CREDITS["grpo"], num_ranks=1, max_tokens=limits.max_tokens, aggregation="token")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        depot, replica = Depot((Path(folder) / "depot").as_uri(), whole_every=ROUNDS), Replica(Path(folder) / "replica")
        for _ in range(ROUNDS):
            await ours.update(batch)
            weights = await ours.publish()
            begun = time.perf_counter()
            sent = depot.send(weights)
            between = time.perf_counter()
            replica.bring(sent)
            rows.append((between - begun, time.perf_counter() - between, depot.sent_bytes / 1e6))
    (_, _, whole), *others = rows
    sending, bringing, size = (statistics.median(column) for column in zip(*others, strict=True))
    print(f"{'':10} sent in {sending:.2f} s, brought in {bringing:.2f} s; whole and compressed {whole:.0f} MB")
    size_mb = sum(path.stat().st_size for path in Path(model).glob("*.safetensors")) / 1e6
    Figure("delta", size, size_mb, "MB", None).tell()


async def bench_dither(config: Config, model: str) -> None:
    """What the first update gains, in advantage-weighted log-probability of its own batch: bfloat16 weights over float32 ones."""
    batch = assemble(groups(config, model)[:2], CREDITS["grpo"], num_ranks=1, max_tokens=config.learner.max_tokens)
    gains = {}
    for name, changes in (("float32", {"dtype": "float32"}), ("plain", {"dither": False}), ("dithered", {"dither": True})):
        limits = replace(config.learner, warmup_steps=0, **changes)
        ours = learner(replace(config, name=f"bench-dither-{name}", learner=limits), model)
        judge = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        before = _gain(judge, batch)
        await ours.update(batch)
        judge.load_state_dict({key: value.float() for key, value in read(await ours.publish())}, strict=False)
        gains[name] = _gain(judge, batch) - before
    print(f"{'':10} learning rate {config.learner.learning_rate:g}; without dither {gains['plain'] / gains['float32']:.2f}")
    Figure("dither", gains["dithered"], gains["float32"], "nats a token", 0.9).tell()


@torch.no_grad()
def _gain(model: PreTrainedModel, batch: Batch) -> float:
    pairs = ((micro, action_logprobs(model, micro)[0]) for micro in batch.shards[0])
    return sum(float((torch.from_numpy(micro.weights_A * micro.advantages_A) * logprobs).sum()) for micro, logprobs in pairs)


async def sharing(config: Config, model: str) -> None:
    await bench_tree(config, model, learner(config, model))


BENCHES = {
    "engine": bench_engine,
    "learner": bench_learner,
    "tree": sharing,
    "publish": bench_publish,
    "delta": bench_delta,
    "dither": bench_dither,
}


async def measure(name: str, config: Config, model: str) -> None:
    memory = MemoryPeak(every_s=2.0)
    watching = asyncio.create_task(memory.watch())
    await BENCHES[name](config, model)
    watching.cancel()
    print(f"{'':10} peak memory of the benchmark {memory.peak_gb:.1f} GB")


def main(names: Sequence[str]) -> None:
    for name in names or BENCHES:
        config = replace(load(CONFIG), name=f"bench-{name}")
        model = check(config)
        with session(config.cluster):
            asyncio.run(measure(name, config, model))


if __name__ == "__main__":
    main(sys.argv[1:])
