"""The engine's end of a publication, in vLLM's worker process: opens an artefact, loads it, compares what is served."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Protocol, cast

import torch
from vllm.config import VllmConfig, WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.attention import is_deferred_attention_layer
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors import cpu_kernels
from learner.depot import Replica
from learner.files import scratch
from learner.publish import WeightsError, hold, read
from learner.weights import Weights

NUM_COLUMNS = 4  # of each matrix that is compared
SHARES = 4  # loads in place until every tensor was compared again


@dataclass
class NoInit(WeightTransferInitInfo):
    """Nothing is agreed beforehand: the receiver pulls."""


@dataclass
class Update(WeightTransferUpdateInfo):
    """Which version to load; it must be the one staged."""

    version: int


class Loader(Protocol):
    """What every vLLM model can do: load named tensors, and say which of its parameters that filled."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]: ...


class Method(Protocol):
    """How a vLLM layer multiplies."""

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor: ...


class Attention(Protocol):
    """A vLLM layer that may keep what it derived from weights of others."""

    def process_weights_after_loading(self, act_dtype: torch.dtype) -> None: ...


class WeightReceiver(WeightTransferEngine[NoInit, Update]):
    """`stage` opens and verifies an artefact while the engine serves; vLLM's update phases then load that very one.

    The first by vLLM's reload. Where that served each tensor as it is, or several on end, the next are written in place.
    """

    init_info_cls = NoInit
    update_info_cls = Update

    def __init__(
        self, config: WeightTransferConfig, vllm_config: VllmConfig, device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self._version = -1
        self._staged: dict[str, torch.Tensor] = {}
        self._names: dict[str, str] = {}
        self._held: IO[bytes] | None = None
        self._in_place = False
        self._replica = Replica(scratch("replica"))

    def stage(self, weights: Weights) -> None:
        """Read and verify, from a copy of what a depot has; raises what `read` raises, and then nothing is staged."""
        self._release()
        try:
            here = self._replica.bring(weights)
            self._held = hold(here)
            self._staged, self._version = dict(read(here)), weights.version
        except WeightsError:
            self._release()
            self._replica.forget()
            raise

    def init_transfer_engine(self, init_info: NoInit) -> None:
        pass

    def start_weight_update(self) -> None:
        self._names = tied_names(self.model)  # asked for now: vLLM unties the parameters until the update is finished
        if not self._in_place:
            initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Update) -> None:
        if update_info.version != self._version or not self._staged:
            raise RuntimeError(f"version {update_info.version} was not staged; staged is {self._version}")
        if self._in_place:
            write(self.model, self._staged, dtype=self.model_config.dtype)
            return
        loaded = cast(Loader, self.model).load_weights(iter(self._staged.items()))
        missing = sorted(set(self._names.values()) - set(loaded))
        if missing:
            raise RuntimeError(f"version {self._version} lacks {len(missing)} tensors of the model, such as {missing[0]}")

    def finish_weight_update(self) -> None:
        if not self._in_place:
            finalize_layerwise_reload(self.model, self.model_config)
        repack_tied(self.model, self._names)
        is_all = compare(self.model, self._staged, names=self._compared())
        self._in_place = self._in_place or is_all
        self._release()

    def shutdown(self) -> None:
        self._release()
        self._replica.forget()

    def _compared(self) -> dict[str, str]:
        """The names to compare: all after a reload; of what is written in place a part each time, another the next."""
        shares = SHARES if self._in_place else 1
        return {name: first for at, (name, first) in enumerate(self._names.items()) if at % shares == self._version % shares}

    def _release(self) -> None:
        self._staged = {}
        if self._held is not None:
            self._held.close()
            self._held = None


class WorkerExtension:
    """Mixed into vLLM's worker: what our engine calls there."""

    weight_transfer_engine: WeightTransferEngine | None

    def stage(self, version: int, where: str, checksum: str) -> str:
        """Why the artefact is refused; empty where it is staged."""
        receiver = self.weight_transfer_engine
        if not isinstance(receiver, WeightReceiver):
            return f"the worker's receiver is a {type(receiver).__name__}"
        try:
            receiver.stage(Weights(version, where, checksum))
        except (OSError, ValueError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"
        return ""


def tied_names(model: torch.nn.Module) -> dict[str, str]:
    """Each parameter's name with the first name of the very same parameter: its own, save where it is tied."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: first.setdefault(id(parameter), name) for name, parameter in named}


def repack_tied(model: torch.nn.Module, names: dict[str, str]) -> None:
    """Let each layer that shares another's parameter prepare its kernels anew.

    vLLM's reload prepares only layers that were given weights; on CPUs a tied output layer multiplies with a packed
    copy, and would go on serving the old one.
    """
    for name, first in names.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        if name != first and isinstance(layer, VocabParallelEmbedding):
            layer.quant_method.process_weights_after_loading(layer)


def write(model: torch.nn.Module, artefact: dict[str, torch.Tensor], *, dtype: torch.dtype) -> None:
    """Give every parameter its new values. RuntimeError where the artefact lacks one.

    A layer that keeps nothing but a packed copy gets the whole matrix, packs it and drops it, as at its first load; an
    attention derives anew what it derives from others' weights.
    """
    fused = _fused(model)
    for name, served in list(model.named_parameters()):
        parts = _parts(name, artefact, fused)
        if not parts:
            raise RuntimeError(f"the artefact lacks {name}")
        expected = _joined(parts)
        layer = model.get_submodule(name.rpartition(".")[0])
        if served.numel():  # what is padded stays so
            served.data[tuple(slice(size) for size in expected.shape)].copy_(expected)
        else:
            layer.weight = torch.nn.Parameter(expected.to(served.device, served.dtype), requires_grad=False)
        if expected.ndim == 2 and isinstance(layer, (LinearBase, ParallelLMHead)):
            layer.quant_method.process_weights_after_loading(layer)
    for layer in model.modules():
        if is_deferred_attention_layer(layer):
            cast(Attention, layer).process_weights_after_loading(dtype)


def compare(model: torch.nn.Module, artefact: dict[str, torch.Tensor], *, names: dict[str, str]) -> bool:
    """Raise RuntimeError unless what is served under `names` equals the artefact. Whether that could be told of each.

    Tensors are compared whole, and for every matrix what the layer multiplies with: fed unit vectors it must answer
    with the very columns, packed or not. What tensor parallelism cuts has another shape and is left out.
    """
    fused, compared, is_all = _fused(model), 0, True
    for name, served in model.named_parameters(remove_duplicate=False):
        if name not in names:
            continue
        parts = _parts(names[name], artefact, fused)
        layer = model.get_submodule(name.rpartition(".")[0])
        is_whole = bool(parts) and _shape(parts) == served.shape
        equal = [torch.equal(_joined(parts).to(served.device, served.dtype), served)] if is_whole else []
        if parts and parts[0].ndim == 2 and isinstance(layer, (LinearBase, ParallelLMHead)) and layer.tp_size == 1:
            equal.append(multiplies_with(layer, parts))
        if not all(equal):
            raise RuntimeError(f"{name} as served differs from the artefact")
        compared += len(equal)
        is_all = is_all and bool(equal)
    if not compared:
        raise RuntimeError("not one served tensor could be compared with the artefact")
    return is_all


def multiplies_with(layer: LinearBase | ParallelLMHead, parts: Sequence[torch.Tensor]) -> bool:
    """Whether the layer's kernel holds the matrix of these rows, by a few columns chosen at random."""
    size = parts[0].shape[1]
    columns = torch.randint(size, (NUM_COLUMNS,))
    expected = torch.cat([part[:, columns] for part in parts]).to(layer.params_dtype)
    units = torch.zeros(NUM_COLUMNS, size, dtype=expected.dtype)
    units[torch.arange(NUM_COLUMNS), columns] = 1.0
    device = next(layer.parameters()).device
    answer = cast(Method, layer.quant_method).apply(layer, units.to(device), None)
    return torch.equal(answer[:, : len(expected)], expected.T.to(device))


def _fused(model: torch.nn.Module) -> dict[str, list[str]]:
    """What vLLM's model calls, say, qkv_proj, with the names of its parts in a checkpoint."""
    mappings = (vars(kind).get("packed_modules_mapping") for kind in type(model).__mro__)
    return next((mapping for mapping in mappings if mapping), {})


def _parts(name: str, artefact: dict[str, torch.Tensor], fused: dict[str, list[str]]) -> list[torch.Tensor]:
    """The tensors that a parameter is made of, on end; none where the artefact does not have them all."""
    if name in artefact:
        return [artefact[name]]
    for whole, parts in fused.items():
        names = [name.replace(f".{whole}.", f".{part}.") for part in parts]
        if f".{whole}." in name and all(part in artefact for part in names):
            return [artefact[part] for part in names]
    return []


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _shape(parts: Sequence[torch.Tensor]) -> tuple[int, ...]:
    return (sum(len(part) for part in parts), *parts[0].shape[1:]) if parts[0].ndim else ()


# It warns at every load of layers that have nothing to load; `compare` is the check.
logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
WeightTransferEngineFactory.register_engine("tiltyard", WeightReceiver)
cpu_kernels.install()
