"""The learner: one rank of DeepSpeed, on CPU or GPU, with any ZeRO stage. All ranks call the same methods together."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner import cpu_layers
from learner.allocator import Pages
from learner.batch import Microbatch
from learner.config import LearnerConfig
from learner.depot import Depot
from learner.dither import dither
from learner.forward import action_logprobs
from learner.loss import Targets, kl_penalty, means, policy_loss
from learner.publish import publish
from learner.random_state import RandomState, seed_all
from learner.weights import Weights

COLLECTIVE_TIMEOUT_S = 300  # DeepSpeed's own default keeps every rank waiting 10 minutes for one that died
BUCKET = 50_000_000  # elements; DeepSpeed's 5e8 would allocate gigabytes for a small model
TAG = "deepspeed"
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class LearnerPlace:
    """Where one rank runs. `rendezvous` is an init method that all ranks reach: "tcp://host:port" or "file:///path".

    Publications are sent on to `depot`, where there is one.
    """

    rank: int
    num_ranks: int
    rendezvous: str
    threads: int
    depot: Depot | None = None


class Policy(torch.nn.Module):
    """The model as DeepSpeed sees it: its forward takes a microbatch, so that the engine's hooks surround all of it."""

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.device = device

    def forward(self, micro: Microbatch) -> tuple[torch.Tensor, torch.Tensor]:
        return action_logprobs(self.model, micro, self.device)


class DeepSpeedLearner:
    """One rank. Version and step are the number of updates made; rank 0 publishes into `folder`.

    Work runs in one thread of its own, so that an actor answers while it trains.
    """

    def __init__(self, config: LearnerConfig, place: LearnerPlace, *, model: str, folder: str, seed: int) -> None:
        self._config = config
        self._place = place
        self._folder = folder
        self._step = 0
        self._pages = Pages()
        # One thread for good: the number of threads and the CUDA device are a thread's own.
        self._thread = ThreadPoolExecutor(1, "learner", torch.set_num_threads, (place.threads,))
        self._thread.submit(self._start, model, seed).result()

    async def update(self, shard: Sequence[Microbatch]) -> Mapping[str, float]:
        """One optimiser step over every rank's shard, which all hold as many microbatches; the whole batch's metrics.

        Of none it is an update that changes nothing.
        """
        return await self._run(lambda: self._update(shard))

    async def publish(self) -> Weights:
        """The present weights as version `step`. Every rank must call; only rank 0's receipt has a checksum."""
        return await self._run(self._publish)

    async def save(self, path: str) -> None:
        """Write this rank's part into `path`, which all ranks share."""
        await self._run(lambda: self._save(Path(path)))

    async def load(self, path: str) -> None:
        """Go on bit for bit from `save`, with as many ranks and the same ZeRO stage.

        DeepSpeed unpickles: hand over only what `learner.checkpoint.verify` has passed.
        """
        await self._run(lambda: self._load(Path(path)))

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _start(self, model: str, seed: int) -> None:
        config, is_cuda = self._config, torch.cuda.is_available()
        self._device = torch.device("cuda", torch.cuda.current_device()) if is_cuda else torch.device("cpu")
        os.environ.setdefault("DS_ACCELERATOR", "cuda" if is_cuda else "cpu")
        os.environ.setdefault("LOCAL_RANK", "0")  # each rank sees its own device alone
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # An all-reduce for inference, which would be compiled by g++ here and now.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._join("nccl" if is_cuda else "gloo")
        self._policy = Policy(self._load_model(model), self._device).train()
        if config.activation_checkpointing:
            self._policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        # Fused: one pass over the flat fp32 master weights instead of ten.
        self._optimizer = torch.optim.AdamW(
            self._policy.parameters(), lr=config.learning_rate, betas=(config.betas[0], config.betas[1]),
            weight_decay=config.weight_decay, fused=True,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its memory use whatever the log level
            self._engine, *_ = deepspeed.initialize(model=self._policy, optimizer=self._optimizer, config=self._settings())
        if config.dither and config.dtype == "bfloat16":
            masters = self._masters()
            for number, master in enumerate(masters):
                dither(master.data, seed=len(masters) * self._place.rank + number)
        self._gathered = deepspeed.zero.GatheredParameters
        self._reference = self._frozen(model) if config.kl else None
        seed_all(seed + self._place.rank)

    def _join(self, backend: str) -> None:
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                backend,
                init_method=self._place.rendezvous,
                rank=self._place.rank,
                world_size=self._place.num_ranks,
                timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_S),
            )
            atexit.register(_leave)

    def _load_model(self, folder: str) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=self._config.dtype, attn_implementation="sdpa", local_files_only=True
        )
        if self._device.type == "cpu":
            cpu_layers.install(model)
        return model

    def _frozen(self, folder: str) -> Policy:
        model = self._load_model(folder).requires_grad_(False)
        return Policy(model, self._device).to(self._device).eval()

    def _masters(self) -> list[torch.Tensor]:
        """This rank's part of the fp32 weights, which DeepSpeed gives the optimizer to update; with stage 3 at each step only."""
        if self._config.zero_stage == 3:
            optimizer: Any = self._engine.optimizer  # as stage 3 wraps it
            return list(optimizer.fp32_partitioned_groups_flat)
        return [master for group in self._optimizer.param_groups for master in group["params"]]

    def _settings(self) -> dict[str, object]:
        """DeepSpeed's settings; nothing that decides what is learnt is left to its defaults, which have changed."""
        is_bf16 = self._config.dtype == "bfloat16"
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            # Every step() is the boundary: a batch has as many microbatches as its trajectories need.
            "managed_gradient_accumulation": False,
            "gradient_clipping": self._config.max_grad_norm,
            "bf16": {"enabled": is_bf16, "check_grad_overflow": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
            "zero_optimization": {
                "stage": self._config.zero_stage,
                "overlap_comm": False,
                "reduce_bucket_size": BUCKET,
                "allgather_bucket_size": BUCKET,
                "stage3_param_persistence_threshold": 0,
            },
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }

    def _update(self, shard: Sequence[Microbatch]) -> dict[str, float]:
        if not shard:
            self._step += 1
            return {}
        start = time.perf_counter()
        sums: dict[str, float] = {}
        for micro in shard:
            for name, value in self._backward(micro).items():
                sums[name] = sums.get(name, 0.0) + value
        rate = self._config.rate(self._step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        before_step = time.perf_counter()
        self._engine.step()
        self._step += 1
        metrics = means(self._sum_over_ranks(sums))
        self._pages.tidy()
        seconds = time.perf_counter() - start
        return metrics | {
            "learner/grad_norm": float(self._engine.get_global_grad_norm() or 0.0),
            "learner/lr": rate,
            "learner/skipped_steps": float(self._engine.skipped_steps),
            "learner/seconds": seconds,
            "learner/step_seconds": time.perf_counter() - before_step,
            "learner/tokens_per_s": metrics["learner/tokens"] / seconds,
        }

    def _backward(self, micro: Microbatch) -> dict[str, float]:
        config = self._config
        targets = Targets.of(micro, self._device)
        logprobs_A, entropy_A = self._engine(micro)
        loss, stats = policy_loss(
            logprobs_A, targets, clip_low=config.clip_low, clip_high=config.clip_high, max_weight=config.max_weight
        )
        if self._reference is not None:
            with torch.no_grad():
                reference_A, _ = self._reference(micro)
            penalty = kl_penalty(logprobs_A, reference_A, targets.weights_A)
            stats["learner/kl"] = penalty.item()
            loss = loss + config.kl * penalty
        # The weights already sum to 1 over all ranks, and DeepSpeed divides by their number.
        self._engine.backward(loss * self._place.num_ranks)
        stats["learner/entropy"] = (targets.weights_A * entropy_A).sum().item()
        stats["learner/tokens"] = float(micro.num_tokens)
        return stats

    def _sum_over_ranks(self, sums: Mapping[str, float]) -> dict[str, float]:
        values = torch.tensor(list(sums.values()), dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(values)
        return dict(zip(sums, values.tolist(), strict=True))

    def _publish(self) -> Weights:
        if self._place.rank == 0:
            local = publish(self._tensors(), self._step, self._folder)
            return self._place.depot.send(local) if self._place.depot else local
        if self._config.zero_stage == 3:
            for _ in self._tensors():
                pass
        return Weights(self._step, str(Path(self._folder) / f"v{self._step:06d}"), "")

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self._policy.model.named_parameters():
            if self._config.zero_stage == 3:
                with self._gathered([parameter]):
                    yield name, parameter.detach().clone()
            else:
                yield name, parameter.detach()

    def _save(self, path: Path) -> None:
        self._engine.save_checkpoint(str(path), tag=TAG, save_latest=False)
        state = {
            "step": self._step,
            "num_ranks": self._place.num_ranks,
            "zero_stage": self._config.zero_stage,
            "random": asdict(RandomState.capture()),
        }
        (path / f"rank-{self._place.rank}.json").write_text(json.dumps(state))

    def _load(self, path: Path) -> None:
        state = json.loads((path / f"rank-{self._place.rank}.json").read_text())
        for name, present in (("num_ranks", self._place.num_ranks), ("zero_stage", self._config.zero_stage)):
            if state[name] != present:
                raise ValueError(f"{path} was saved with learner.{name}={state[name]}, not {present}: resume with the saved one")
        self._engine.load_checkpoint(str(path), tag=TAG)
        self._step = state["step"]
        RandomState(**state["random"]).restore()


def _leave() -> None:
    """Left to the interpreter's own end, the process group's threads now and then abort a process after all its work."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
