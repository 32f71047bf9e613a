"""One pass of a Hugging Face causal language model over a microbatch.

Axes: T unique tokens, S segments, A actions, U places that predict something, D the hidden size, V token ids.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from learner.batch import Microbatch

CHUNK = 64  # rows of logits held in fp32 at a time; larger ones leave the cache and are slower on a CPU


def attention_mask(segments_S3: NDArray[np.int64], device: torch.device | str = "cpu") -> torch.Tensor:
    """[1, 1, T, T] bool: token i sees token j iff j is an ancestor of i, or i itself.

    In preorder the descendants of a segment end at one place, so i sees j iff j <= i < end of j's descendants.
    """
    starts_S, stops_S, parents_S = segments_S3.T
    ends_S = stops_S.copy()
    for segment in range(len(ends_S) - 1, 0, -1):
        parent = parents_S[segment]
        if parent >= 0:
            ends_S[parent] = max(ends_S[parent], ends_S[segment])
    ends_T = torch.from_numpy(np.repeat(ends_S, stops_S - starts_S)).to(device)
    places_T = torch.arange(len(ends_T), device=device)
    return ((places_T[None, :] <= places_T[:, None]) & (places_T[:, None] < ends_T[None, :]))[None, None]


def action_logprobs(
    model: PreTrainedModel, micro: Microbatch, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's log-probability of each action token (A, fp32, with gradient) and its entropy there (A, detached).

    The backbone runs once over the T unique tokens, the head only where something is predicted. A microbatch without
    actions gives empty tensors that still lead back to every parameter.
    """
    hidden_TD = _backbone(model, micro, device)
    sources_U, rows_A = np.unique(micro.sources_A, return_inverse=True)
    hidden_UD = hidden_TD[torch.from_numpy(sources_U).to(device)]
    head = model.get_output_embeddings()
    order_A = np.argsort(rows_A, kind="stable")
    starts = list(range(0, len(sources_U), CHUNK)) or [0]
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    for start, entries in zip(starts, np.split(order_A, np.searchsorted(rows_A[order_A], starts[1:])), strict=True):
        rows = torch.from_numpy(rows_A[entries] - start).to(device)
        targets = torch.from_numpy(micro.targets_A[entries]).to(device)
        # Logits are made again in the backward pass: all of them in fp32 would be the largest tensor of the step.
        hidden = hidden_UD[start : start + CHUNK]
        parts.append(checkpoint(_chunk, head, hidden, rows, targets, use_reentrant=False))
    back_A = torch.from_numpy(np.argsort(order_A)).to(device)
    logprobs_A, entropy_A = (torch.cat(part)[back_A] for part in zip(*parts, strict=True))
    return logprobs_A, entropy_A


def _backbone(model: PreTrainedModel, micro: Microbatch, device: torch.device | str) -> torch.Tensor:
    mask = attention_mask(micro.segments_S3, device)
    # Additive in the model's dtype: attention would turn a boolean mask into this once a layer (5 to 10 % on a CPU).
    bias = torch.zeros(mask.shape, dtype=model.dtype, device=device).masked_fill_(~mask, float("-inf"))
    return model.base_model(
        input_ids=torch.from_numpy(micro.tokens_T).to(device)[None],
        position_ids=torch.from_numpy(micro.positions_T).to(device)[None],
        attention_mask=bias,
        use_cache=False,
    ).last_hidden_state[0]


def _chunk(
    head: torch.nn.Module, hidden_UD: torch.Tensor, rows_A: torch.Tensor, targets_A: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    all_UV = torch.log_softmax(head(hidden_UD).float(), dim=-1)
    with torch.no_grad():
        entropy_U = -torch.linalg.vecdot(all_UV.exp(), all_UV)
    return all_UV[rows_A, targets_A], entropy_U[rows_A]
