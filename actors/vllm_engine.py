"""The Engine that serves a real model: vLLM's AsyncLLM, tokens in, tokens and their log-probabilities out."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from actors.desk import Desk
from actors.engine import Completion, EngineError, EngineStats, PromptTooLong, Sampling
from actors.engine_pool import WeightsRefused
from actors.renderer import end_tokens
from envs.types import Span
from learner.weights import Weights

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats

Dtype = Literal["bfloat16", "float16", "float32", "auto"]


FULL = 0.8  # of a KV cache: one request less already
CPU_BLOCK_SIZE = 32  # tokens a cache block; smaller shares more of a common prefix


@dataclass(frozen=True)
class VLLMConfig:
    """`kv_cache_gb` 0 leaves it to `gpu_memory_utilization`; `threads` is for CPUs, 0 for vLLM's own choice."""

    kv_cache_gb: float = 2.0
    max_model_len: int = 2048
    max_num_seqs: int = 64
    threads: int = 0
    enforce_eager: bool = True
    dtype: str = "bfloat16"
    gpu_memory_utilization: float = 0.5
    tensor_parallel: int = 1
    load_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_model_len", "max_num_seqs", "tensor_parallel", "load_timeout_s"):
            if vars(self)[name] < 1:
                raise ValueError(f"actors.engine.{name} is {vars(self)[name]}; it must be at least 1")
        for name in ("kv_cache_gb", "threads"):
            if vars(self)[name] < 0:
                raise ValueError(f"actors.engine.{name} is {vars(self)[name]}; it must be 0 or more")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"actors.engine.gpu_memory_utilization is {self.gpu_memory_utilization}; it must lie in (0, 1]")
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"actors.engine.dtype is {self.dtype!r}; it must be one of {', '.join(get_args(Dtype))}")


class CacheWatch:
    """A logger of vLLM's statistics that keeps the two that decide how much an engine can be given.

    Preemptions count where the cache was full: a load of weights throws every request out as well, to compute it anew.
    """

    def __init__(self) -> None:
        self.kv_usage, self.preemptions = 0.0, 0
        self._before = 0.0

    def record(
        self, scheduler_stats: SchedulerStats | None, iteration_stats: IterationStats | None, *_: object, **__: object
    ) -> None:
        if scheduler_stats is not None:
            self._before, self.kv_usage = self.kv_usage, scheduler_stats.kv_cache_usage
        if iteration_stats is not None and max(self._before, self.kv_usage) >= FULL:
            self.preemptions += iteration_stats.num_preempted_reqs

    def log(self) -> None: ...

    def log_engine_initialized(self) -> None: ...

    def record_sleep_state(self, *_: object, **__: object) -> None: ...


class VLLMEngine(Desk):
    """One model served by vLLM in processes of its own, which die with this one. Serves version 0 until a `load`."""

    def __init__(self, config: VLLMConfig, *, model: str, seed: int) -> None:
        super().__init__()
        _set_environment(config, model)
        from vllm import AsyncEngineArgs, SamplingParams, TokensPrompt
        from vllm.config import WeightTransferConfig
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest
        from vllm.platforms import current_platform
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.async_llm import AsyncLLM

        self._params, self._prompt, self._update = SamplingParams, TokensPrompt, WeightTransferUpdateRequest
        self._final_only = RequestOutputKind.FINAL_ONLY
        self._config, self._ends = config, end_tokens(Path(model))
        self._ids, self._version, self._tokens, self._fault = itertools.count(), 0, 0, ""
        self._watch = watch = CacheWatch()
        self._requests: set[asyncio.Task[CompletionOutput]] = set()
        self._loading = asyncio.Lock()
        has_gpu = not current_platform.is_cpu()
        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=model,
                skip_tokenizer_init=True,
                generation_config="vllm",
                dtype=cast(Dtype, config.dtype),
                seed=seed,
                max_model_len=config.max_model_len,
                max_num_seqs=config.max_num_seqs,
                enforce_eager=config.enforce_eager,
                kv_cache_memory_bytes=int(config.kv_cache_gb * 2**30) or None,
                gpu_memory_utilization=config.gpu_memory_utilization,
                tensor_parallel_size=config.tensor_parallel,
                distributed_executor_backend="uni" if config.tensor_parallel == 1 else "mp",
                enable_prefix_caching=True,
                # A seeded request cut in two by chunked prefill ends vLLM on CPUs (its generators have no offset), and
                # a small budget makes the first prompt fill the cache from which its siblings read.
                enable_chunked_prefill=has_gpu,
                max_num_batched_tokens=None if has_gpu else config.max_model_len,
                block_size=None if has_gpu else CPU_BLOCK_SIZE,
                logprobs_mode="processed_logprobs",
                weight_transfer_config=WeightTransferConfig(backend="tiltyard"),
                worker_extension_cls="actors.weight_receiver.WorkerExtension",
                additional_config={"owner": Owner("owner")},
                disable_log_stats=True,
            ),
            stat_loggers=[lambda _config, _index: watch],  # type: ignore[list-item, return-value]
        )

    @property
    def is_usable(self) -> bool:
        return not self._fault and not self._llm.errored

    async def ready(self) -> None:
        """The constructor has done all; a caller of an actor waits for that here."""
        self._check()

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        """Sample one action. Raises PromptTooLong where nothing fits after `tokens`, else EngineError."""
        room = self._config.max_model_len - len(tokens)
        if room < 1:
            raise PromptTooLong(f"{len(tokens)} tokens leave no room in actors.engine.max_model_len={self._config.max_model_len}")
        self._check()
        task = asyncio.create_task(self._request(tokens, sampling, room=room, session=session))
        self._requests.add(task)
        try:
            completion = read_completion(await task)
        except asyncio.CancelledError:
            self._check()  # a failed load cancels what was in flight
            raise
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"vLLM failed on {session!r}: {type(error).__name__}: {error}") from error
        finally:
            self._requests.discard(task)
        self._tokens += len(completion.tokens)
        return completion

    async def forget(self, session: str) -> None:
        return None

    async def load(self, weights: Weights) -> None:
        """Serve these weights, requests in flight included.

        An artefact that does not verify raises WeightsRefused and changes nothing; any later error raises EngineError
        and ends the engine.
        """
        async with self._loading:
            self._check()
            try:
                async with asyncio.timeout(self._config.load_timeout_s):
                    await self._swap(weights)
            except WeightsRefused:
                raise
            except (Exception, asyncio.CancelledError) as error:
                await self._end(f"loading version {weights.version} failed: {type(error).__name__}: {error}")
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise EngineError(self._fault) from error

    async def stats(self) -> EngineStats:
        running = len(self._requests)
        waiting = max(0, running - self._config.max_num_seqs)
        return EngineStats(
            running, waiting, self._tokens, self._version, kv_usage=self._watch.kv_usage, preemptions=self._watch.preemptions
        )

    async def close(self) -> None:
        """End vLLM's processes; what is in flight raises EngineError."""
        await self._end("the engine was closed")

    async def _request(self, tokens: Sequence[int], sampling: Sampling, *, room: int, session: str) -> CompletionOutput:
        params = self._params(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=min(sampling.max_tokens, room),
            seed=sampling.seed,
            stop_token_ids=sorted({*self._ends, *sampling.stops}),
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            output_kind=self._final_only,
        )
        prompt = self._prompt(prompt_token_ids=list(tokens))
        async for output in self._llm.generate(prompt, params, f"{session}/{next(self._ids)}"):
            if output.finished:
                return output.outputs[0]
        raise EngineError(f"vLLM ended {session!r} without an answer")

    async def _swap(self, weights: Weights) -> None:
        fields = {"version": weights.version, "where": weights.where, "checksum": weights.checksum}
        for refusal in await self._llm.collective_rpc("stage", kwargs=fields):
            if refusal:
                raise WeightsRefused(f"version {weights.version} in {weights.where} was refused: {refusal}")
        await self._llm.pause_generation(mode="keep", clear_cache=False)
        await self._llm.start_weight_update()
        await self._llm.update_weights(self._update(update_info={"version": weights.version}))
        await self._llm.finish_weight_update(weight_version=str(weights.version))
        # vLLM keeps the prefix cache over an update: without this the next prompts read keys of the old weights.
        if not await self._llm.reset_prefix_cache(reset_running_requests=True):
            raise EngineError("vLLM did not reset its prefix cache")
        self._version = weights.version
        await self._llm.resume_generation()

    async def _end(self, reason: str) -> None:
        self._fault = self._fault or reason
        for task in list(self._requests):
            task.cancel()
        await asyncio.to_thread(self._llm.shutdown, 5.0)

    def _check(self) -> None:
        if self._fault:
            raise EngineError(f"this engine is unusable and must be replaced: {self._fault}")


def read_completion(output: CompletionOutput) -> Completion:
    """vLLM's answer as a Completion. Raises EngineError where log-probabilities or versions are missing or odd."""
    tokens = tuple(output.token_ids)
    if output.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM finished with {output.finish_reason!r}")
    found = output.logprobs or ()
    if len(found) != len(tokens):
        raise EngineError(f"vLLM gave {len(found)} log-probabilities for {len(tokens)} tokens")
    pairs = zip(tokens, found, strict=True)
    logprobs = tuple(at[token].logprob if at and token in at else math.nan for token, at in pairs)
    if not all(map(math.isfinite, logprobs)):
        raise EngineError(f"vLLM gave log-probabilities that are not finite: {logprobs}")
    # Before the first load vLLM calls its weights "default"; they are the model folder's own.
    versions = tuple(
        Span(0 if span.version == "default" else int(span.version), span.start, span.end) for span in output.weight_versions or ()
    )
    if not versions or versions[-1].stop != len(tokens):
        raise EngineError(f"vLLM gave weight versions {versions} for {len(tokens)} tokens")
    return Completion(tokens, logprobs, output.finish_reason, versions)


class Owner(str):
    """Travels in vLLM's config to its core process and on to its workers; where it arrives, that process is bound to die
    with the one that sent it. By itself vLLM leaves its core process behind when the owner is killed while it starts.
    """

    def __reduce__(self) -> tuple[Callable[[int], Owner], tuple[int]]:
        return die_with, (os.getpid(),)


def die_with(owner: int) -> Owner:
    """End this process as soon as `owner`, a process of the same machine, is gone."""
    if owner != os.getpid():  # a copy made in the owner itself binds nobody
        try:
            handle = os.pidfd_open(owner)
        except ProcessLookupError:
            os._exit(1)
        threading.Thread(target=_watch, args=(handle,), name="die-with-owner", daemon=True).start()
    return Owner("owner")


def _watch(handle: int) -> None:
    select.select([handle], [], [])  # readable once the process has ended
    os.kill(os.getpid(), signal.SIGKILL)


def _set_environment(config: VLLMConfig, model: str) -> None:
    """vLLM reads these when it is imported, so they are set before."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    # On CPUs vLLM would put its one worker in a process of its own, and wait for it spinning, which takes half of two
    # cores; told so, it keeps the worker in the engine's process (AsyncLLM has a process of its own all the same).
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if Path(model).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets 1 for an actor that reserves no CPU
    if config.threads:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
