"""Blocks together see exactly what the tree says, whatever they are cut to."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.attention import blocks, descendants_end, forest_attention
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
        context = [place for first, last in block.context for place in range(first, last)]
        own = range(block.start, block.stop)
        assert context[-len(own) :] == [*own]
        for token, bias_N in zip(own, block.bias_LN.tolist(), strict=True):
            seen = {place for place, bias in zip(context, bias_N, strict=True) if bias == 0}
            assert seen == {place for place in range(token + 1) if token < ends[place]}


def test_a_large_segment_is_cut_up_and_small_siblings_share_a_block() -> None:
    segments = build([(1,) * 10 + (2, 3), (1,) * 10 + (4, 5)]).segments_S3
    assert [(block.start, block.stop) for block in blocks(segments, dtype=torch.float32, most=4)] == [
        (0, 4),
        (4, 8),
        (8, 10),
        (10, 14),
    ]
    assert len(blocks(segments, dtype=torch.float32, most=64)) == 1


def test_values_of_another_width_than_keys_are_summed_alike() -> None:
    torch.manual_seed(0)
    forest = blocks(build([(1,) * 10 + (2, 3), (1,) * 10 + (4, 5)]).segments_S3, dtype=torch.float64, most=4)
    query, key, *values = (torch.randn(1, heads, 14, 8, dtype=torch.float64).requires_grad_() for heads in (4, 2, 2, 2))
    wide = torch.cat(values, -1).detach().requires_grad_()
    module = torch.nn.Module()
    apart = torch.cat([forest_attention(module, query, key, value, None, scaling=0.3, forest=forest)[0] for value in values], -1)
    whole = forest_attention(module, query, key, wide, None, scaling=0.3, forest=forest)[0]
    torch.testing.assert_close(whole, apart)
    draw = torch.randn_like(whole)
    expected = torch.autograd.grad(apart, (query, key, *values), draw)
    grad_query, grad_key, grad_wide = torch.autograd.grad(whole, (query, key, wide), draw)
    torch.testing.assert_close((grad_query, grad_key, grad_wide), (*expected[:2], torch.cat(expected[2:], -1)))
