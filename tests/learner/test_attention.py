"""Blocks together see exactly what the tree says, whatever they are cut to."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.attention import blocks, descendants_end
from learner.tree import build

PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=9)


@given(PATHS, st.sampled_from([1, 2, 5, 100]))
def test_blocks_see_the_ancestors_and_nothing_else(paths: list[list[int]], most: int) -> None:
    segments = build([tuple(path) for path in paths]).segments_S3
    ends = descendants_end(segments)
    cut = blocks(segments, dtype=torch.float32, most=most)
    assert [block.start for block in cut] == [0, *(block.stop for block in cut[:-1])]
    assert cut[-1].stop == len(ends)
    for block in cut:
        columns = [place for above in block.ancestors for place in range(cut[above].start, cut[above].stop)]
        columns += range(block.start, block.stop)
        for row, token in enumerate(range(block.start, block.stop)):
            seen = {column for column, bias in zip(columns, block.bias_LN[row].tolist(), strict=True) if bias == 0}
            assert seen == {place for place in range(token + 1) if token < ends[place]}


def test_a_large_segment_stands_alone_and_small_siblings_share_a_block() -> None:
    segments = build([(1,) * 10 + (2, 3), (1,) * 10 + (4, 5)]).segments_S3
    assert [(block.start, block.stop) for block in blocks(segments, dtype=torch.float32, most=4)] == [(0, 10), (10, 14)]
    assert len(blocks(segments, dtype=torch.float32, most=64)) == 1
