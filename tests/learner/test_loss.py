from __future__ import annotations

import math

import pytest
import torch

from learner.config import LearnerConfig
from learner.loss import Targets, kl_penalty, means, policy_loss

LIMITS = {"clip_low": 0.2, "clip_high": 0.28, "max_weight": 2.0}


Result = tuple[float, list[float], dict[str, float]]


def run(ratios: list[float], advantages: list[float], weights: list[float]) -> Result:
    """Loss, gradient by log-probability and stats, where the engine's log-probabilities are all -1."""
    engine = torch.full((len(ratios),), -1.0)
    logprobs = (engine + torch.tensor(ratios).log()).requires_grad_()
    none = torch.zeros(len(ratios), dtype=torch.bool)
    loss, stats = policy_loss(logprobs, Targets(engine, torch.tensor(advantages), torch.tensor(weights), none), **LIMITS)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return float(loss.detach()), gradient.tolist(), stats


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -1.28 * 2, 0.0),  # raised enough: clipped above
        (0.5, 2.0, -1.0, -1.0),  # went the wrong way: not clipped
        (0.5, -2.0, 0.8 * 2, 0.0),  # lowered enough: clipped below
        (1.5, -2.0, 3.0, 3.0),  # went the wrong way: not clipped
        (5.0, -2.0, 2.0 * 2, 0.0),  # truncated
        (1.0, 0.0, 0.0, 0.0),
    ],
)
def test_hand_values(ratio: float, advantage: float, loss: float, gradient: float):
    got_loss, got_gradient, stats = run([ratio], [advantage], [1.0])
    assert got_loss == pytest.approx(loss, rel=1e-5)
    assert got_gradient == pytest.approx([gradient], rel=1e-5)
    assert stats["learner/clip_fraction"] == (1.0 if gradient == 0 and advantage else 0.0)
    assert stats["learner/logprob_gap"] == pytest.approx(abs(math.log(ratio)), abs=1e-6)
    assert stats["learner/kl_engine"] == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-5)


def test_parts_of_a_batch_add():
    ratios, advantages, weights = [0.7, 1.0, 1.6, 3.0], [1.0, -1.0, 0.5, -0.5], [0.1, 0.2, 0.3, 0.4]
    whole, _, stats = run(ratios, advantages, weights)
    halves = [run(ratios[part], advantages[part], weights[part]) for part in (slice(0, 2), slice(2, 4))]
    assert sum(half[0] for half in halves) == pytest.approx(whole)
    for name, value in stats.items():
        assert sum(half[2][name] for half in halves) == pytest.approx(value)


def test_measurements_are_per_token_whatever_share_of_the_batch_was_trained_on():
    _, _, half = run([1.5, 1.5], [1.0, 1.0], [0.25, 0.25])
    assert means(half)["learner/logprob_gap"] == pytest.approx(math.log(1.5), rel=1e-5)
    assert means(half)["learner/clip_fraction"] == 1.0 and means(half)["learner/loss"] == half["learner/loss"]
    assert means({"learner/tokens": 3.0}) == {"learner/tokens": 3.0}


def test_a_hopeless_ratio_stays_finite():
    loss, gradient, _ = run([1e30], [1.0], [1.0])
    assert loss == pytest.approx(-1.28) and gradient == [0.0]


def test_no_action_is_a_zero_that_can_be_differentiated():
    loss, gradient, stats = run([], [], [])
    assert loss == 0 and gradient == [] and set(stats.values()) == {0.0}


def test_what_is_imitated_is_fitted_beside_what_is_reinforced():
    logprobs = torch.tensor([-1.0, -300.0, -1.0], requires_grad=True)
    imitated = torch.tensor([True, True, False])
    targets = Targets(torch.tensor([0.0, 0.0, -1.0]), torch.tensor([1.0, 1.0, -2.0]), torch.tensor([0.5, 0.25, 0.25]), imitated)
    loss, stats = policy_loss(logprobs, targets, **LIMITS)
    loss.backward()
    assert float(loss.detach()) == 0.5 + 0.25 * 300 + 0.25 * 2  # -w log p twice, then -w r A with a ratio of 1
    assert logprobs.grad is not None and logprobs.grad.tolist() == [-0.5, -0.25, 0.5]
    assert stats["learner/logprob_gap"] == stats["learner/kl_engine"] == stats["learner/clip_fraction"] == 0


def test_kl_is_zero_at_the_reference_and_its_mean_is_the_divergence():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.2, 0.6]).log()
    assert float(kl_penalty(policy, policy, torch.ones(3))) == 0
    exact = float((policy.exp() * (policy - reference)).sum())
    assert float(kl_penalty(policy, reference, policy.exp())) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("kl", -0.1),
        ("zero_stage", 4),
        ("dtype", "float16"),
        ("credit", "gae"),
        ("aggregation", "mean"),
        ("solutions", "longest"),
        ("betas", [0.9]),
        ("clip_low", 1.0),
        ("max_weight", 1.1),
    ],
)
def test_a_bad_config_names_the_field_and_the_value(field: str, value: float | str | list[float]):
    with pytest.raises(ValueError) as error:
        LearnerConfig(**{field: value})
    assert f"learner.{field}" in str(error.value) and str(value) in str(error.value)


def test_the_learning_rate_rises_and_falls_in_a_line():
    config = LearnerConfig(num_steps=5, learning_rate=1.0, warmup_steps=2, final_rate=0.2)
    assert [config.rate(step) for step in range(6)] == pytest.approx([0.5, 0.8, 0.6, 0.4, 0.2, 0.2])
    assert LearnerConfig(num_steps=1, learning_rate=1.0).rate(0) == 1.0
