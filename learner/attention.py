"""Attention over a forest of segments, block by block: what cannot see each other is never multiplied.

Axes: T unique tokens of a microbatch, H query heads, K key heads, D a head's size, L tokens of a block, N of its context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

NAME = "tiltyard_forest"
MAX_BLOCK = 256  # tokens: several small branches share a block, whose empty corners cost less than more calls


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens [start, stop) in preorder, the blocks that hold all their ancestors, and who sees whom (L, N) as a bias."""

    start: int
    stop: int
    ancestors: tuple[int, ...]
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
    """Cut the preorder of a forest into blocks that tile 0..T: a large segment alone, small subtrees together."""
    ends_T = descendants_end(segments_S3)
    found: list[Block] = []
    path: list[int] = []  # blocks of the large segments above
    for start, stop, is_large in _cuts(segments_S3, ends_T, most):
        path = [above for above in path if ends_T[found[above].start] > start]
        places = np.arange(start, stop)
        is_hidden = (places[None, :] > places[:, None]) | (places[:, None] >= ends_T[None, start:stop])
        seen = sum(found[above].stop - found[above].start for above in path)
        bias = torch.zeros(stop - start, seen + stop - start, dtype=dtype, device=device)
        bias[:, seen:].masked_fill_(torch.from_numpy(is_hidden).to(device), float("-inf"))
        found.append(Block(start, stop, tuple(path), bias))
        if is_large:
            path.append(len(found) - 1)
    return tuple(found)


def _cuts(segments_S3: NDArray[np.int64], ends_T: NDArray[np.int64], most: int) -> list[tuple[int, int, bool]]:
    """(start, stop, is large): a segment with more than `most` tokens below it alone; smaller subtrees whole, siblings joined."""
    cuts: list[tuple[int, int, bool]] = []
    taken, last_parent = 0, -1
    for start, stop, parent in segments_S3.tolist():
        end = int(ends_T[start])
        if start < taken:
            continue
        if end - start > most:
            cuts.append((start, stop, True))
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
        length = query.shape[2]
        is_hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
        forest = (Block(0, length, (), query.new_zeros(length, length).masked_fill_(is_hidden, float("-inf"))),)
    # The products are made again in the backward pass: the memory that they would hold is better spent on larger
    # microbatches, which compute their shared prefix fewer times.
    made = checkpoint(_by_block, query * scaling, key, value, forest, use_reentrant=False, preserve_rng_state=False)
    return made.transpose(1, 2), None


def _by_block(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, forest: Sequence[Block]) -> torch.Tensor:
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    # One split, whose gradient is one join; a slice per block would each have a gradient as long as the microbatch.
    sizes = [block.stop - block.start for block in forest]
    keys, values = key.split(sizes, 2), value.split(sizes, 2)
    parts = [
        _attend(
            queries,
            torch.cat([*(keys[above] for above in block.ancestors), keys[place]], 2),
            torch.cat([*(values[above] for above in block.ancestors), values[place]], 2),
            bias_LN=block.bias_LN,
        )
        for place, (block, queries) in enumerate(zip(forest, query.split(sizes, 2), strict=True))
    ]
    return torch.cat(parts, 2)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, bias_LN: torch.Tensor) -> torch.Tensor:
    # Plain products: at these sizes PyTorch's fused attention is slower on a CPU, most of all going backward.
    return torch.softmax(query @ key.transpose(-1, -2) + bias_LN, -1) @ value


AttentionInterface.register(NAME, forest_attention)
