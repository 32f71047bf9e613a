"""Packing: sequences as a forest of token tries, so that a token shared by siblings goes through the model once.

Axes: T unique tokens, S segments, L the length of one sequence. The forest lies in preorder: a parent comes before its
children, and whatever descends from a token follows it without a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """`paths[k]` are the places in T of sequence k's tokens; rows of segments_S3 are (start, stop, parent or -1)."""

    tokens_T: Ints
    positions_T: Ints
    segments_S3: Ints
    paths: tuple[Ints, ...]


def build(sequences: Sequence[Ints | Sequence[int]]) -> Forest:
    """The trie of the sequences: equal prefixes are merged, segments are the longest runs without a branch."""
    arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    paths = [np.empty(0, np.int64)] * len(arrays)
    tokens, positions, parents = [], [], []
    last, path, num_tokens = np.empty(0, np.int64), np.empty(0, np.int64), 0
    for index in _order(sequences):
        shared = _common(last, arrays[index])
        new = np.arange(num_tokens, num_tokens + len(arrays[index]) - shared)
        last, path, num_tokens = arrays[index], np.concatenate([path[:shared], new]), num_tokens + len(new)
        paths[index] = path
        tokens.append(last[shared:])
        positions.append(np.arange(shared, len(last)))
        parents.append(np.concatenate([[-1], path])[shared : len(path)])
    parents_T = np.concatenate(parents).astype(np.int64)
    return Forest(np.concatenate(tokens), np.concatenate(positions), _segments(parents_T), tuple(paths))


def pack(sequences: Sequence[Ints | Sequence[int]], max_tokens: int, *, multiple: int = 1) -> list[list[int]]:
    """Indices of the sequences, parted so that each part's forest has at most `max_tokens` tokens, all nearly alike.

    A sequence longer than `max_tokens` gets a part of its own. No more parts than needed, rounded up to `multiple`
    (there may be fewer, never more): then the cap is lowered as far as that number of parts allows.
    """
    order = _order(sequences)
    arrays = [np.asarray(sequences[index], dtype=np.int64) for index in order]
    lengths = [len(array) for array in arrays]
    shared = [0, *(_common(a, b) for a, b in zip(arrays, arrays[1:], strict=False))]
    allowed = -(-len(_cuts(lengths, shared, max_tokens)) // multiple) * multiple
    # Below the longest sequence a cap would part siblings without making the largest part any smaller.
    low, high = min(max(lengths), max_tokens), max_tokens
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_cuts(lengths, shared, middle)) <= allowed else (middle + 1, high)
    cuts = _cuts(lengths, shared, high)
    return [order[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(order)], strict=True)]


def _order(sequences: Sequence[Ints | Sequence[int]]) -> list[int]:
    # Sorted, every sequence's longest shared prefix is with its neighbour: siblings, and groups of one system prompt.
    return sorted(range(len(sequences)), key=[np.asarray(sequence).tolist() for sequence in sequences].__getitem__)


def _common(a_L: Ints, b_L: Ints) -> int:
    length = min(len(a_L), len(b_L))
    unequal = np.flatnonzero(a_L[:length] != b_L[:length])
    return int(unequal[0]) if len(unequal) else length


def _cuts(lengths: Sequence[int], shared: Sequence[int], cap: int) -> list[int]:
    cuts, used = [], 0
    for index, (length, prefix) in enumerate(zip(lengths, shared, strict=True)):
        if cuts and used + length - prefix <= cap:
            used += length - prefix
        else:
            cuts.append(index)
            used = length
    return cuts


def _segments(parents_T: Ints) -> Ints:
    count = len(parents_T)
    children = np.bincount(parents_T + 1, minlength=count + 1)
    is_start = (parents_T != np.arange(count) - 1) | (children[parents_T + 1] > 1) | (np.arange(count) == 0)
    starts = np.flatnonzero(is_start)
    # One more entry at the end, for parent -1 to find.
    segment_T = np.append(np.cumsum(is_start) - 1, -1)
    return np.stack([starts, np.append(starts[1:], count), segment_T[parents_T[starts]]], axis=1).astype(np.int64)
