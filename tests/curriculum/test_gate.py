import math

from hypothesis import given
from hypothesis import strategies as st

from curriculum.config import GateConfig
from curriculum.gate import StepFacts, decide

GATE = GateConfig(plateau_validations=2, plateau_delta=0.01, grad_norm_spread=0.2)
RISING = (0.1, 0.3, 0.5, 0.7)
FLAT = (0.1, 0.7, 0.7, 0.705)
CALM, WILD = (9.0, 1.0, 1.0, 1.1), (1.0, 1.0, 0.1, 5.0)


def told(validations, norms, gate=GATE, *, min_steps=1, max_steps=0):
    history = [StepFacts(at, "s", norm, value) for at, (value, norm) in enumerate(zip(validations, norms, strict=True))]
    return decide(history, gate, min_steps=min_steps, max_steps=max_steps)


def test_a_plateau_with_a_stable_norm_advances_and_says_the_figures():
    decision = told(FLAT, CALM)
    assert decision.advance
    assert decision.reason == (
        "the validation reward has plateaued (best of the last 2 0.705, before 0.700, limit +0.01); "
        "the gradient norm is stable (spread 0.05 over 2 steps, limit 0.2)"
    )


def test_a_plateau_without_stability_stays():
    decision = told(FLAT, WILD)
    assert not decision.advance
    assert "has plateaued" in decision.reason and "is not stable" in decision.reason


def test_stability_without_a_plateau_stays():
    decision = told(RISING, CALM)
    assert not decision.advance
    assert "still rises" in decision.reason and "is stable" in decision.reason


def test_a_norm_that_is_not_finite_is_never_stable():
    assert not told(FLAT, (1.0, 1.0, 1.0, math.nan)).advance
    assert not told(FLAT, (1.0, 1.0, math.inf, math.inf)).advance


def test_steps_without_validation_count_for_the_norm_alone():
    validations = (0.5, None, 0.5, None, 0.5, None)
    assert told(validations, (1.0,) * 6).advance
    assert not told(validations, (1.0, 1.0, 1.0, 1.0, 1.0, 9.0)).advance


def test_too_few_validations_stay():
    assert "2 of 3 validations" in told((0.5, 0.5), (1.0, 1.0)).reason


def test_never_before_min_steps_even_at_the_target():
    reached = GateConfig(min_validation=0.6)
    assert not told(FLAT, CALM, min_steps=5).advance
    assert not told(FLAT, CALM, reached, min_steps=5).advance


def test_the_target_ends_the_stage_at_once():
    decision = told((0.9,), (1.0,), GateConfig(min_validation=0.8))
    assert decision.advance and "0.900 reached the target 0.800" in decision.reason


@given(st.lists(st.tuples(st.none() | st.floats(0, 1), st.floats(width=32)), max_size=12), st.integers(1, 12))
def test_max_steps_ends_any_stage(rows, limit):
    history = [StepFacts(at, "s", norm, value) for at, (value, norm) in enumerate(rows)]
    decision = decide(history, GATE, min_steps=1, max_steps=limit)
    assert decision.reason
    if len(history) >= limit:
        assert decision.advance
