from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.attention import descendants_end
from learner.tree import build, pack

# Three token ids only, so that prefixes coincide by chance.
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=10)


def sees(segments_S3: np.ndarray) -> np.ndarray:
    """[T, T]: which token sees which."""
    ends_T = descendants_end(segments_S3)
    places = np.arange(len(ends_T))
    return (places[None, :] <= places[:, None]) & (places[:, None] < ends_T[None, :])


def num_prefixes(paths: list[list[int]]) -> int:
    return len({tuple(path[: stop + 1]) for path in paths for stop in range(len(path))})


def test_a_forest_by_hand():
    forest = build([[7, 8, 9], [7, 8, 5, 6], [4], [7, 8]])
    assert forest.tokens_T.tolist() == [4, 7, 8, 5, 6, 9]
    assert forest.positions_T.tolist() == [0, 0, 1, 2, 3, 2]
    assert forest.segments_S3.tolist() == [[0, 1, -1], [1, 3, -1], [3, 5, 1], [5, 6, 1]]
    assert [path.tolist() for path in forest.paths] == [[1, 2, 5], [1, 2, 3, 4], [0], [1, 2]]


@given(sequences)
def test_every_sequence_reads_back_along_its_path(paths: list[list[int]]):
    forest = build(paths)
    assert [forest.tokens_T[path].tolist() for path in forest.paths] == paths
    assert all(forest.positions_T[path].tolist() == list(range(len(path))) for path in forest.paths)
    assert len(forest.tokens_T) == num_prefixes(paths)


@given(sequences)
def test_segments_tile_the_forest_parents_first_and_are_maximal(paths: list[list[int]]):
    segments = build(paths).segments_S3.tolist()
    assert [start for start, _, _ in segments] == [0, *(stop for _, stop, _ in segments[:-1])]
    assert all(start < stop and parent < index for index, (start, stop, parent) in enumerate(segments))
    only_children = {parent for _, _, parent in segments if sum(p == parent for _, _, p in segments) == 1}
    assert only_children <= {-1}


@given(sequences)
def test_a_token_sees_its_path_and_nothing_else(paths: list[list[int]]):
    forest = build(paths)
    mask = sees(forest.segments_S3)
    for path in forest.paths:
        for depth, place in enumerate(path):
            assert np.flatnonzero(mask[place]).tolist() == sorted(path[: depth + 1].tolist())


@given(sequences, st.integers(1, 30), st.integers(1, 4))
def test_parts_hold_everything_once_within_the_budget(paths: list[list[int]], max_tokens: int, multiple: int):
    parts = pack(paths, max_tokens, multiple=multiple)
    assert sorted(index for part in parts for index in part) == list(range(len(paths)))
    for part in parts:
        assert num_prefixes([paths[i] for i in part]) <= max_tokens or len(part) == 1
    assert parts == pack(paths, max_tokens, multiple=multiple)


def test_siblings_stay_together_and_parts_are_balanced():
    prompts = [[group] * 50 for group in range(4)]
    paths = [prompts[index % 4] + [10 + index] * 10 for index in range(16)]
    parts = pack(paths, 110)
    assert sorted(sorted(i % 4 for i in part) for part in parts) == [[group] * 4 for group in range(4)]
    assert {len(build([paths[i] for i in part]).tokens_T) for part in parts} == {90}


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_parts_are_few_and_rounded_up_to_the_ranks(multiple: int):
    paths = [[index] * 10 for index in range(12)]
    assert len(pack(paths, 45, multiple=multiple)) == {1: 3, 2: 4, 4: 4}[multiple]
