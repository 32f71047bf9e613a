"""One pass of a Hugging Face causal language model over a microbatch.

Axes: T unique tokens, S segments, A actions, U places that predict something, D the hidden size, V token ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from learner.attention import NAME, blocks
from learner.batch import Microbatch

CHUNK = 512  # rows of logits made at a time
KEPT_BYTES = 256 << 20  # a microbatch's logits up to this size are kept; more are made again in the backward pass
CPU_ROWS = 8  # of those, rows held in fp32 at a time: more would leave the cache


def action_logprobs(
    model: PreTrainedModel, micro: Microbatch, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's log-probability of each action token (A, fp32, with gradient) and its entropy there (A, detached).

    Both are of softmax(logits / temperature), which is what the engine sampled from.

    The backbone runs once over the T unique tokens, the head only where something is predicted. A microbatch without
    actions gives empty tensors that still lead back to every parameter.
    """
    model.set_attn_implementation(NAME)
    hidden_TD = _backbone(model, micro, device)
    # Siblings share the places where they part, and may part at different temperatures.
    asked_U, rows_A = np.unique(np.stack([micro.sources_A, micro.temperatures_A], axis=1), axis=0, return_inverse=True)
    sources_U, rows_A = asked_U[:, 0].astype(np.int64), rows_A.reshape(-1)
    hidden_UD = hidden_TD[torch.from_numpy(sources_U).to(device)]
    temperatures_U = torch.from_numpy(asked_U[:, 1:].astype(np.float32)).to(device)
    head = model.get_output_embeddings()
    is_kept = len(sources_U) * model.config.get_text_config().vocab_size * hidden_TD.element_size() <= KEPT_BYTES
    order_A = np.argsort(rows_A, kind="stable")
    starts = list(range(0, len(sources_U), CHUNK)) or [0]
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    for start, entries in zip(starts, np.split(order_A, np.searchsorted(rows_A[order_A], starts[1:])), strict=True):
        rows = torch.from_numpy(rows_A[entries] - start).to(device)
        targets = torch.from_numpy(micro.targets_A[entries]).to(device)
        span = slice(start, start + CHUNK)
        given = (head, hidden_UD[span], temperatures_U[span], rows, targets)
        parts.append(_chunk(*given) if is_kept else checkpoint(_chunk, *given, use_reentrant=False))
    back_A = torch.from_numpy(np.argsort(order_A)).to(device)
    logprobs_A, entropy_A = (torch.cat(part)[back_A] for part in zip(*parts, strict=True))
    return logprobs_A, entropy_A


def _backbone(model: PreTrainedModel, micro: Microbatch, device: torch.device | str) -> torch.Tensor:
    return model.base_model(
        input_ids=torch.from_numpy(micro.tokens_T).to(device)[None],
        position_ids=torch.from_numpy(micro.positions_T).to(device)[None],
        forest=blocks(micro.segments_S3, dtype=model.dtype, device=device),
        use_cache=False,
    ).last_hidden_state[0]


def _chunk(
    head: Any, hidden_UD: torch.Tensor, temperatures_U1: torch.Tensor, rows_A: torch.Tensor, targets_A: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return _Picked.apply(head(hidden_UD), temperatures_U1, rows_A, targets_A)  # type: ignore[return-value]


class _Picked(torch.autograd.Function):
    """log softmax(logits / temperature) at (row, target), with gradient, and the rows' entropies there; rows ascend.

    The same as PyTorch's own functions one after the other, in a few passes over rows that stay in a CPU's cache.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_UV: torch.Tensor, temperatures_U1: torch.Tensor, rows_A: torch.Tensor, targets_A: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        lse_U1 = torch.empty_like(temperatures_U1)
        entropy_U1 = torch.empty_like(temperatures_U1)
        for rows in _slices(logits_UV):
            scaled = logits_UV[rows].float() / temperatures_U1[rows]
            lse_U1[rows] = scaled.logsumexp(-1, keepdim=True)
            chances = (scaled - lse_U1[rows]).exp_()
            entropy_U1[rows] = lse_U1[rows] - chances.mul_(scaled).sum(-1, keepdim=True)
        ctx.save_for_backward(logits_UV, temperatures_U1, lse_U1, rows_A, targets_A)
        picked_A = logits_UV[rows_A, targets_A].float() / temperatures_U1[rows_A, 0] - lse_U1[rows_A, 0]
        entropy_A = entropy_U1[rows_A, 0]
        ctx.mark_non_differentiable(entropy_A)
        return picked_A, entropy_A

    @staticmethod
    def backward(ctx: Any, *grads_A: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits_UV, temperatures_U1, lse_U1, rows_A, targets_A = ctx.saved_tensors
        grad_A = grads_A[0] / temperatures_U1[rows_A, 0]
        grad_U1 = torch.zeros_like(temperatures_U1).index_add_(0, rows_A, grad_A[:, None])
        grad_UV = torch.empty_like(logits_UV)
        for rows in _slices(logits_UV):
            found = (logits_UV[rows].float() / temperatures_U1[rows]).sub_(lse_U1[rows]).exp_().mul_(-grad_U1[rows])
            first, last = torch.searchsorted(rows_A, torch.tensor([rows.start, rows.stop], device=rows_A.device)).tolist()
            found.index_put_((rows_A[first:last] - rows.start, targets_A[first:last]), grad_A[first:last], accumulate=True)
            grad_UV[rows] = found
        return grad_UV, None, None, None


def _slices(logits_UV: torch.Tensor) -> list[slice]:
    size = CPU_ROWS if logits_UV.device.type == "cpu" else max(len(logits_UV), 1)
    return [slice(start, start + size) for start in range(0, len(logits_UV), size)]
