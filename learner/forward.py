"""One pass of a Hugging Face causal language model over a microbatch.

Axes: T unique tokens, S segments, A actions, U places that predict something, D the hidden size, V token ids.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from learner.attention import NAME, blocks
from learner.batch import Microbatch

CHUNK = 64  # rows of logits held in fp32 at a time; larger ones leave the cache and are slower on a CPU


def action_logprobs(
    model: PreTrainedModel, micro: Microbatch, device: torch.device | str = "cpu", *, bare: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's log-probability of each action token (A, fp32, with gradient) and its entropy there (A, detached).

    Both are of softmax(logits / temperature), which is what the engine sampled from; `bare` of the model's own softmax.

    The backbone runs once over the T unique tokens, the head only where something is predicted. A microbatch without
    actions gives empty tensors that still lead back to every parameter.
    """
    model.set_attn_implementation(NAME)
    hidden_TD = _backbone(model, micro, device)
    # Siblings share the places where they part, and may part at different temperatures.
    temperatures_A = np.ones_like(micro.temperatures_A) if bare else micro.temperatures_A
    asked_U, rows_A = np.unique(np.stack([micro.sources_A, temperatures_A], axis=1), axis=0, return_inverse=True)
    sources_U, rows_A = asked_U[:, 0].astype(np.int64), rows_A.reshape(-1)
    hidden_UD = hidden_TD[torch.from_numpy(sources_U).to(device)]
    temperatures_U = torch.from_numpy(asked_U[:, 1:].astype(np.float32)).to(device)
    head = model.get_output_embeddings()
    order_A = np.argsort(rows_A, kind="stable")
    starts = list(range(0, len(sources_U), CHUNK)) or [0]
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    for start, entries in zip(starts, np.split(order_A, np.searchsorted(rows_A[order_A], starts[1:])), strict=True):
        rows = torch.from_numpy(rows_A[entries] - start).to(device)
        targets = torch.from_numpy(micro.targets_A[entries]).to(device)
        # Logits are made again in the backward pass: all of them in fp32 would be the largest tensor of the step.
        span = slice(start, start + CHUNK)
        parts.append(checkpoint(_chunk, head, hidden_UD[span], temperatures_U[span], rows, targets, use_reentrant=False))
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
    head: torch.nn.Module, hidden_UD: torch.Tensor, temperatures_U1: torch.Tensor, rows_A: torch.Tensor, targets_A: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    all_UV = torch.log_softmax(head(hidden_UD).float() / temperatures_U1, dim=-1)
    with torch.no_grad():
        entropy_U = -torch.linalg.vecdot(all_UV.exp(), all_UV)
    return all_UV[rows_A, targets_A], entropy_U[rows_A]
