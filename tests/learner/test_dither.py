"""Dithered masters: the same 16-bit weights at first, and weights that follow their masters in the mean."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.dither import dither

FINITE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


def masters(weights: torch.Tensor, seed: int = 0) -> torch.Tensor:
    found = weights.float()
    dither(found, seed=seed)
    return found


@given(st.lists(FINITE, min_size=1, max_size=50), st.integers(0, 1000))
def test_the_16_bit_weights_are_the_same(values: list[float], seed: int) -> None:
    weights = torch.tensor(values).bfloat16()
    assert torch.equal(masters(weights, seed).bfloat16(), weights)


def test_zeros_stay() -> None:
    assert masters(torch.zeros(100).bfloat16()).tolist() == [0.0] * 100


def test_masters_differ_and_come_again() -> None:
    weights = torch.full((1000,), -0.3).bfloat16()
    assert len(set(masters(weights).tolist())) > 950
    assert torch.equal(masters(weights), masters(weights)) and not torch.equal(masters(weights), masters(weights, 1))


def test_weights_follow_an_update_far_below_their_own_step_in_the_mean() -> None:
    weights = (torch.randn(400_000, generator=torch.Generator().manual_seed(0)) * 0.1).bfloat16()
    update = 2e-5  # a twentieth of a step at 0.1
    plain = (weights.float() + update).bfloat16().float() - weights.float()
    spread = (masters(weights) + update).bfloat16().float() - weights.float()
    assert plain.mean() < 0.6 * update  # only the smallest weights moved
    assert abs(spread.mean() - update) < 0.03 * update
