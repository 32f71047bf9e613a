"""Norms and gated units of a model on a CPU: a few passes through the cache instead of ten through memory.

A layer is taken over only where ours answers as its own does, so a model that scales or gates otherwise keeps its own.
Axes: T tokens, D the layer's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

ROWS_BYTES = 1 << 19  # of fp32 held at a time: stays in a core's cache
PROBE_ROWS = 4


def install(model: PreTrainedModel) -> int:
    """Replace the `forward` of every RMS norm and SiLU-gated unit of `model`; how many were. A tied embedding is
    made to give its gradient by rows."""
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(inner, nn.Embedding) and outer is not None and inner.weight is outer.weight:
        inner.sparse = True  # few rows are added to the head's gradient, instead of a second one as large
    return sum(_take_over(module) for module in model.modules())


def _take_over(module: nn.Module) -> bool:
    parts, values = dict(module.named_children()), vars(module)
    if not parts and "variance_epsilon" in values and "weight" in dict(module.named_parameters(recurse=False)):
        return _replace(module, _norm_forward, size=module.get_parameter("weight").shape[0])
    if {"gate_proj", "up_proj", "down_proj", "act_fn"} <= parts.keys() and isinstance(parts["gate_proj"], nn.Linear):
        return _replace(module, _gated_forward, size=parts["gate_proj"].in_features)
    return False


def _replace(module: nn.Module, forward: Any, *, size: int) -> bool:
    probe = torch.randn(PROBE_ROWS, size, generator=torch.Generator().manual_seed(0))
    probe = probe.to(next(module.parameters()).dtype)
    ours = MethodType(forward, module)
    with torch.no_grad():
        if not torch.equal(ours(probe), module(probe)):
            return False
    module.forward = ours
    return True


def _norm_forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    return _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)  # type: ignore[return-value]


def _gated_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(_SiLUGate.apply(self.gate_proj(x), self.up_proj(x)))


class _RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps), in fp32 save for the last product; keeps x alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(x, weight_D)
        ctx.eps = eps
        out = torch.empty_like(x)
        for x_TD, out_TD in _rows(x, out):
            torch.mul(weight_D, _normalised(x_TD, eps)[0].to(x.dtype), out=out_TD)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight_D = ctx.saved_tensors
        grad_x, grad_D = torch.empty_like(x), torch.zeros_like(weight_D, dtype=torch.float32)
        for x_TD, grad_TD, out_TD in _rows(x, gradients[0].contiguous(), grad_x):
            unit_TD, scale_T1 = _normalised(x_TD, ctx.eps)
            grad_TD = grad_TD.float()
            grad_D += (grad_TD * unit_TD).sum(0)
            grad_TD *= weight_D
            along_T1 = (grad_TD * unit_TD).mean(-1, keepdim=True)
            out_TD.copy_(grad_TD.sub_(unit_TD.mul_(along_T1)).mul_(scale_T1))
        return grad_x, grad_D.to(weight_D.dtype), None


class _SiLUGate(torch.autograd.Function):
    """silu(gate) * up; keeps the two alone."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(up)
        for gate_TD, up_TD, out_TD in _rows(gate, up, out):
            torch.mul(functional.silu(gate_TD), up_TD, out=out_TD)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gate, up = ctx.saved_tensors
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        for gate_TD, up_TD, grad_TD, to_gate_TD, to_up_TD in _rows(gate, up, gradients[0].contiguous(), grad_gate, grad_up):
            torch.mul(grad_TD, functional.silu(gate_TD), out=to_up_TD)
            to_gate_TD.copy_(torch.ops.aten.silu_backward(grad_TD * up_TD, gate_TD))
        return grad_gate, grad_up


def _normalised(x_TD: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    x_TD = x_TD.float()
    scale_T1 = torch.rsqrt(x_TD.pow(2).mean(-1, keepdim=True) + eps)
    return x_TD * scale_T1, scale_T1


def _rows(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The tensors' rows, a few at a time, as views."""
    size = tensors[0].shape[-1]
    flat = [tensor.view(-1, size) for tensor in tensors]
    count = max(1, ROWS_BYTES // (4 * size))
    return zip(*(tensor.split(count) for tensor in flat), strict=True)
