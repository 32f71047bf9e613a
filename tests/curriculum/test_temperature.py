from hypothesis import given
from hypothesis import strategies as st

from curriculum.temperature import HIGHEST, STEP, next_temperature


@given(st.lists(st.none() | st.floats(0, 5), max_size=40), st.floats(0.1, 2.0))
def test_it_moves_by_a_step_within_its_bounds(entropies, lowest):
    now = lowest
    for entropy in entropies:
        before, now = now, next_temperature(now, entropy, target=0.3, lowest=lowest)
        assert lowest - 1e-6 <= now <= max(HIGHEST, lowest) + 1e-6 and abs(now - before) <= STEP + 1e-6


def test_it_rises_when_sampling_is_sure_and_falls_when_it_is_not():
    assert next_temperature(1.0, 0.2, target=0.3, lowest=0.8) == 1.05
    assert next_temperature(1.0, None, target=0.3, lowest=0.8) == 1.05
    assert next_temperature(1.0, 0.4, target=0.3, lowest=0.8) == 0.95
