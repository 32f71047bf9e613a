import asyncio
import copy
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.engine import EngineError, PromptTooLong, Sampling
from actors.engine_pool import WeightsRefused
from actors.renderer import Renderer, end_tokens
from actors.vllm_engine import CacheWatch, Owner, VLLMConfig, VLLMEngine
from envs.shop import taskset
from envs.types import Span
from learner import publish
from learner.depot import Depot
from learner.model import prepare

ROOT = Path(__file__).parents[2]
# <|im_start|>user, "Name three colours.", <|im_end|>, <|im_start|>assistant
CHAT = [1, 4093, 198, 5820, 1296, 14797, 30, 2, 198, 1, 520, 9531, 198]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"generation_config.json": '{"eos_token_id": [7, 9]}', "config.json": '{"eos_token_id": 2}'}, (7, 9)),
        ({"generation_config.json": "{}", "config.json": '{"eos_token_id": 2}'}, (2,)),
        ({"config.json": '{"eos_token_id": 2}'}, (2,)),
        ({}, ()),  # the chat template names one all the same
    ],
)
def test_end_tokens_come_from_the_model_folder(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert end_tokens(tmp_path) == expected


@pytest.mark.parametrize(
    "values",
    [{"max_num_seqs": 0}, {"kv_cache_gb": -1.0}, {"gpu_memory_utilization": 1.5}, {"dtype": "int4"}, {"threads": -1}],
)
def test_a_config_names_what_is_wrong_with_it(values):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=rf"actors.engine.{name} is {value!r}"):
        VLLMConfig(**values)


OWNER = """
import time
from multiprocessing import get_context
from actors.vllm_engine import Owner

child = get_context("spawn").Process(target=time.sleep, args=(600,))
child.owner = Owner("owner")  # pickled with the rest of the process object, as vLLM pickles its config
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_what_is_given_an_owner_dies_when_the_owner_is_killed():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert not is_gone(child)
        owner.kill()
    assert wait_until(lambda: is_gone(child))


def test_a_copy_in_the_owner_itself_binds_nobody():
    before = threading.active_count()
    assert copy.deepcopy({"owner": Owner("owner")}) == {"owner": "owner"}
    assert threading.active_count() == before


@dataclass
class Said:
    """What vLLM's two records tell of it here."""

    kv_cache_usage: float = 0.0
    num_preempted_reqs: int = 0


def test_only_preemptions_of_a_full_cache_count():
    watch = CacheWatch()
    for usage, preempted, expected in ((0.3, 0, 0), (0.1, 4, 0), (0.95, 0, 0), (0.7, 1, 1), (0.6, 2, 1), (0.9, 1, 2)):
        watch.record(Said(kv_cache_usage=usage), Said(num_preempted_reqs=preempted))
        assert (watch.kv_usage, watch.preemptions) == (usage, expected)
    watch.record(None, None)
    assert watch.preemptions == 2


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found = set(children.get(pid, []))
    return found.union(*(descendants(child) for child in found))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Reference:
    """The same model in plain transformers."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.initial = self.tensors()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items() if name != "lm_head.weight"}

    def greedy(self, prompt: list[int], count: int) -> tuple[int, ...]:
        batch = torch.tensor([prompt])
        out = self.model.generate(batch, max_new_tokens=count, do_sample=False, attention_mask=torch.ones_like(batch))
        return tuple(out[0, len(prompt) :].tolist())

    @torch.no_grad()
    def logprobs(self, prompt: list[int], action: tuple[int, ...], temperature: float) -> torch.Tensor:
        logits = self.model(torch.tensor([prompt + list(action)])).logits[0, len(prompt) - 1 : -1].float()
        return torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(action)[:, None])[:, 0]


def perturbed(tensors: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    noise = {name: torch.randn(tensor.shape, generator=rng) for name, tensor in tensors.items()}
    return {name: (x * (1 + scale * noise[name])).to(x.dtype) for name, x in tensors.items()}


@pytest.mark.e2e
async def test_the_life_of_an_engine(tmp_path, tmp_path_factory):
    """One start, since it takes long: sampling, publications, a damaged one, a broken one, the end."""
    folder = prepare("smollm2", tmp_path_factory.getbasetemp().parent / "models")
    reference = Reference(folder)
    before = descendants(os.getpid())
    engine = VLLMEngine(VLLMConfig(kv_cache_gb=1.0, max_model_len=1024), model=str(folder), seed=1)
    # multiprocessing's resource tracker, a child too, lives as long as this process
    processes = {pid for pid in descendants(os.getpid()) - before if Path(f"/proc/{pid}/comm").read_text().startswith("VLLM")}
    assert processes
    try:
        await check_sampling(engine, reference, folder)
        await check_prompt_limits(engine)
        await check_cancelled(engine)
        for version in (1, 2):  # by vLLM's reload, and in place
            await check_load(engine, reference, tmp_path, version=version)
        await check_load(engine, reference, tmp_path, version=3, depot=Depot((tmp_path / "depot").as_uri(), whole_every=9))
        await check_load_in_flight(engine, reference, tmp_path)
        await check_damaged(engine, reference, tmp_path)
        await check_broken(engine, reference, tmp_path)
    finally:
        await engine.close()
    assert wait_until(lambda: all(map(is_gone, processes)))


def prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(1000, 40000, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def task_prompt(folder: Path) -> list[int]:
    """What a policy reads in a run: on random tokens every log-probability is -8 to -13, and its rounding as large."""
    task = taskset("test", "3")[0]
    return list(Renderer(str(folder)).open(task.messages, task.tools))


async def check_sampling(engine: VLLMEngine, reference: Reference, folder: Path) -> None:
    read = task_prompt(folder)
    for temperature in (1.0, 0.5):
        sampling = Sampling(temperature=temperature, max_tokens=32, seed=3)
        completion = await engine.generate(read, sampling, session="s")
        # Several, since a single unlikely token may differ by more than 1.
        others = [engine.generate(read, replace(sampling, seed=seed), session=f"s{seed}") for seed in range(4, 19)]
        gaps = []
        for sampled in (completion, *await asyncio.gather(*others)):
            assert len(sampled.logprobs) == len(sampled.tokens)
            assert sampled.versions == (Span(0, 0, len(sampled.tokens)),)
            gaps.append((torch.tensor(sampled.logprobs) - reference.logprobs(read, sampled.tokens, temperature)).abs())
        print(f"temperature {temperature}: mean gap {torch.cat(gaps).mean():.4f}")
        assert torch.cat(gaps).mean() < 0.05
    cut = await engine.generate(prompt(200), Sampling(max_tokens=4, seed=3), session="s")
    assert (cut.finish, len(cut.tokens)) == ("length", 4)
    ended = await engine.generate(CHAT, Sampling(temperature=0, max_tokens=300), session="s")
    assert (ended.finish, ended.tokens[-1]) == ("stop", 2)


async def check_prompt_limits(engine: VLLMEngine) -> None:
    with pytest.raises(PromptTooLong, match="1024"):
        await engine.generate(prompt(1024), Sampling(), session="s")
    last = await engine.generate(prompt(1023), Sampling(max_tokens=8), session="s")
    assert len(last.tokens) == 1


async def check_cancelled(engine: VLLMEngine) -> None:
    """What nobody waits for any more is no longer computed."""
    call = asyncio.create_task(engine.generate(prompt(300), Sampling(temperature=1.5, max_tokens=700, seed=1), session="gone"))
    while not (await engine.stats()).kv_usage:
        await asyncio.sleep(0.05)
    assert (await engine.stats()).running == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await engine.stats()).running == 0 and not engine._llm.output_processor.has_unfinished_requests()
    await engine.generate(prompt(20), Sampling(max_tokens=2), session="next")
    assert (await engine.stats()).kv_usage < 300 / 1024 / 10  # its blocks are free again


async def check_load(engine: VLLMEngine, reference: Reference, folder: Path, *, version: int, depot: Depot | None = None) -> None:
    """New weights are served as transformers serves them, also for a prompt whose old prefix was cached.

    From a depot they come as what changed since the version before.
    """
    greedy = Sampling(temperature=0, max_tokens=12)
    old = await engine.generate(prompt(300), greedy, session="s")
    new = perturbed(reference.initial, 0.05) if depot else perturbed(reference.tensors(), 0.05 * version)
    if depot:
        depot.send(publish.publish(reference.tensors().items(), version - 1, str(folder)))
    began = time.monotonic()
    weights = publish.publish(new.items(), version, str(folder))
    weights = depot.send(weights) if depot else weights
    published = time.monotonic()
    await engine.load(weights)
    print(f"publish {published - began:.2f} s, load {time.monotonic() - published:.2f} s")
    # Several prompts: after one of noise, under noisy weights, a dozen tokens' rounding alone comes to 0.05 now and then.
    prompts = [prompt(300), *(prompt(300, n) for n in range(1, 16))]
    served = await asyncio.gather(*(engine.generate(read, greedy, session=f"n{n}") for n, read in enumerate(prompts)))
    completion = served[0]

    def gap() -> float:
        pairs = zip(prompts, served, strict=True)
        gaps = [torch.tensor(one.logprobs) - reference.logprobs(read, one.tokens, 1.0) for read, one in pairs]
        return float(torch.cat(gaps).abs().mean())

    stale = gap()
    reference.model.load_state_dict(new, strict=False)
    print(f"mean gap after a load {gap():.4f}, to the old weights {stale:.4f}")
    assert gap() < 0.05 < 0.5 * stale
    assert completion.tokens != old.tokens
    assert completion.versions == (Span(version, 0, 12),)
    assert completion.tokens[:4] == reference.greedy(prompt(300), 4)
    assert (await engine.stats()).version == version


async def check_load_in_flight(engine: VLLMEngine, reference: Reference, folder: Path) -> None:
    weights = publish.publish(perturbed(reference.tensors(), 0.01).items(), 4, str(folder))
    sampling = Sampling(temperature=1.5, max_tokens=250, seed=1)
    calls = [asyncio.create_task(engine.generate(prompt(50, n), sampling, session=f"s{n}")) for n in range(4)]
    await engine.generate(prompt(20), Sampling(temperature=1.5, max_tokens=20, seed=1), session="first")
    await engine.load(weights)
    completions = await asyncio.gather(*calls)
    assert any([span.version for span in completion.versions] == [3, 4] for completion in completions)
    for completion in completions:
        assert completion.versions[-1].stop == len(completion.tokens)
        assert all(map(math.isfinite, completion.logprobs))


async def check_damaged(engine: VLLMEngine, reference: Reference, folder: Path) -> None:
    weights = publish.publish(reference.tensors().items(), 5, str(folder))
    shard = next(Path(weights.where).glob("*.safetensors"))
    with shard.open("r+b") as file:
        file.seek(10**6)
        byte = file.read(1)
        file.seek(10**6)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(WeightsRefused, match="checksum"):
        await engine.load(weights)
    assert engine.is_usable
    completion = await engine.generate(prompt(50), Sampling(max_tokens=4), session="s")
    assert completion.versions[-1].version == 4


async def check_broken(engine: VLLMEngine, reference: Reference, folder: Path) -> None:
    """An intact artefact of half a model fails in the middle: whoever waits is told; nothing is served after it."""
    half = dict(list(reference.tensors().items())[:100])
    weights = publish.publish(half.items(), 6, str(folder))
    sampling = Sampling(temperature=1.5, max_tokens=900, seed=1)
    waiting = asyncio.create_task(engine.generate(prompt(50), sampling, session="s"))
    await asyncio.sleep(0)
    with pytest.raises(EngineError, match="loading version 6 failed"):
        await engine.load(weights)
    with pytest.raises(EngineError, match="unusable"):
        await waiting
    assert not engine.is_usable
    with pytest.raises(EngineError, match="unusable"):
        await engine.load(weights)
    with pytest.raises(EngineError, match="must be replaced"):
        await engine.generate(prompt(50), sampling, session="s")
