"""Attention over a forest of segments, block by block: what cannot see each other is never multiplied.

Axes: T unique tokens of a microbatch, H query heads, K key heads, D a head's size, L tokens of a block, N of its context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AttentionInterface

NAME = "tiltyard_forest"
MAX_BLOCK = 256  # tokens: several small branches share a block, whose empty corners cost less than more calls


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens [start, stop) in preorder, the runs [first, last) of their context, and who sees whom as a bias.

    The context is all ancestors of the block, which every token of it sees, and the block itself at the end.
    """

    start: int
    stop: int
    context: tuple[tuple[int, int], ...]
    bias_LN: torch.Tensor


def descendants_end(segments_S3: NDArray[np.int64]) -> NDArray[np.int64]:
    """[T]: where the descendants of each token's segment end. Token i sees token j iff j <= i < end of j."""
    starts_S, stops_S, parents_S = segments_S3.T
    ends_S = stops_S.copy()
    for segment in range(len(ends_S) - 1, 0, -1):
        if parents_S[segment] >= 0:
            ends_S[parents_S[segment]] = max(ends_S[parents_S[segment]], ends_S[segment])
    return np.repeat(ends_S, stops_S - starts_S)


def blocks(
    segments_S3: NDArray[np.int64], *, dtype: torch.dtype, device: torch.device | str = "cpu", most: int = MAX_BLOCK
) -> tuple[Block, ...]:
    """Cut the preorder of a forest into blocks of at most `most` tokens that tile 0..T, small subtrees together."""
    ends_T = descendants_end(segments_S3)
    found: list[Block] = []
    path: list[tuple[int, int]] = []  # the large segments above, and this one's own beginning
    for start, stop, is_large in _cuts(segments_S3, ends_T, most):
        path = [run for run in path if ends_T[run[0]] > start]
        places = np.arange(start, stop)
        is_hidden = (places[None, :] > places[:, None]) | (places[:, None] >= ends_T[None, start:stop])
        context = _joined([*path, (start, stop)])
        bias_LN = torch.zeros(stop - start, sum(last - first for first, last in context), dtype=dtype, device=device)
        bias_LN[:, start - stop :].masked_fill_(torch.from_numpy(is_hidden).to(device), float("-inf"))
        found.append(Block(start, stop, context, bias_LN))
        if is_large:
            path.append((start, stop))
    return tuple(found)


def _joined(runs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def _cuts(segments_S3: NDArray[np.int64], ends_T: NDArray[np.int64], most: int) -> list[tuple[int, int, bool]]:
    """(start, stop, is large): segments with over `most` tokens below are cut up, smaller subtrees are whole, siblings joined."""
    cuts: list[tuple[int, int, bool]] = []
    taken, last_parent = 0, -1
    for start, stop, parent in segments_S3.tolist():
        end = int(ends_T[start])
        if start < taken:
            continue
        if end - start > most:
            cuts += [(first, min(first + most, stop), True) for first in range(start, stop, most)]
            continue
        if cuts and not cuts[-1][2] and last_parent == parent and end - cuts[-1][0] <= most:
            cuts[-1] = (cuts[-1][0], end, False)
        else:
            cuts.append((start, end, False))
        taken, last_parent = end, parent
    return cuts


def forest_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    forest: Sequence[Block] = (),
    **_: object,
) -> tuple[torch.Tensor, None]:
    """[1, H, T, D] queries and [1, K, T, D] keys and values to [1, T, H, D], as transformers asks of an attention.

    Without a forest it is one plain causal sequence.
    """
    if not forest:
        forest = blocks(np.asarray([[0, query.shape[2], -1]]), dtype=query.dtype, device=query.device)
    return _ForestAttention.apply(query, key, value, forest, scaling), None  # type: ignore[return-value]


class _ForestAttention(torch.autograd.Function):
    """Block after block; the query heads that share a key head are one product.

    Chances are made again in the backward pass: the memory that they would hold is better spent on larger microbatches,
    which compute their shared prefix fewer times. By plain products: on a CPU PyTorch's fused attention is quicker going
    forward, and slower going backward. Here R is the number of query heads of a key head.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, forest: Sequence[Block], scaling: float
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.forest, ctx.scaling = forest, scaling
        out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        out_KRTD = _by_key_head(out[0].transpose(0, 1), key.shape[1])
        query_KRTD = _by_key_head(query[0], key.shape[1])
        for block in forest:
            rows = slice(block.start, block.stop)
            out_KRTD[:, :, rows] = _attend(block, query_KRTD[:, :, rows], _context(block, key), _context(block, value), scaling)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        grad_out_KRTD = _by_key_head(gradients[0][0].transpose(0, 1), key.shape[1])
        query_KRTD, grad_query_KRTD = (_by_key_head(x[0], key.shape[1]) for x in (query, grad_query))
        for block in ctx.forest:
            keys, values = _context(block, key), _context(block, value)
            rows = slice(block.start, block.stop)
            chances = _chances(block, query_KRTD[:, :, rows], keys, ctx.scaling)
            out_KMD = grad_out_KRTD[:, :, rows].flatten(1, 2)
            _add(block, grad_value, chances.mT @ out_KMD)
            scores = torch.ops.aten._softmax_backward_data(out_KMD @ values.mT, chances, -1, chances.dtype)
            grad_query_KRTD[:, :, rows] = (scores @ keys).mul_(ctx.scaling).view_as(grad_query_KRTD[:, :, rows])
            _add(block, grad_key, scores.mT @ (query_KRTD[:, :, rows].flatten(1, 2) * ctx.scaling))
        return grad_query, grad_key, grad_value, None, None


def _by_key_head(x_HTD: torch.Tensor, num_key_heads: int) -> torch.Tensor:
    return x_HTD.unflatten(0, (num_key_heads, -1))


def _attend(
    block: Block, query_KRLD: torch.Tensor, keys_KND: torch.Tensor, values_KND: torch.Tensor, scaling: float
) -> torch.Tensor:
    """[K, R, L, D]"""
    if query_KRLD.device.type == "cpu" and keys_KND.shape == values_KND.shape:
        repeats, (length, size) = query_KRLD.shape[1], keys_KND.shape[1:]
        keys, values = (x[:, None].expand(-1, repeats, length, size) for x in (keys_KND, values_KND))
        return functional.scaled_dot_product_attention(query_KRLD, keys, values, attn_mask=block.bias_LN, scale=scaling)
    chances = _chances(block, query_KRLD, keys_KND, scaling)
    return (chances @ values_KND).unflatten(1, query_KRLD.shape[1:3])


def _chances(block: Block, query_KRLD: torch.Tensor, keys_KND: torch.Tensor, scaling: float) -> torch.Tensor:
    """[K, R * L, N]: who attends to whom."""
    scores = (query_KRLD * scaling).flatten(1, 2) @ keys_KND.mT
    # Every token of the block sees all of its context but, in part, the block itself.
    own = slice(-len(block.bias_LN), None)
    scores.view(*query_KRLD.shape[:3], -1)[..., own] += block.bias_LN[:, own]
    return torch.softmax(scores, -1)


def _context(block: Block, x: torch.Tensor) -> torch.Tensor:
    """[K, N, D]: the rows of `x` (1, K, T, D) that the block attends to, its own last."""
    runs = [x[0, :, first:last] for first, last in block.context]
    return runs[0] if len(runs) == 1 else torch.cat(runs, 1)


def _add(block: Block, gradient: torch.Tensor, part_KND: torch.Tensor) -> None:
    start = 0
    for first, last in block.context:
        gradient[0, :, first:last] += part_KND[:, start : start + last - first]
        start += last - first


AttentionInterface.register(NAME, forest_attention)
