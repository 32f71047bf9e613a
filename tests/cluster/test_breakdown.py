import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.breakdown import breakdown, parts
from envs.types import Stop, Trajectory

SECONDS = st.floats(0, 1e4, allow_nan=False)


def trajectory(seconds: float, **spent: float) -> Trajectory:
    return Trajectory("0-0", "t", (), Stop.DONE, seconds=seconds, spent=spent)


def test_the_wait_for_groups_is_divided_as_the_episodes_spent_theirs():
    acted = [trajectory(6.0, engine=4.0, environment=1.0, reward=0.5), trajectory(4.0, engine=4.0)]
    phases = {"generate": 20.0, "assemble": 0.1, "update": 10.0, "publish": 0.5, "load": 0.2}
    found = parts(breakdown(phases, 31.0, trajectories=acted, learner={"learner/seconds": 9.0, "learner/step_seconds": 0.3}))
    expected = {"engine": 16.0, "environment": 2.0, "reward": 1.0, "actor": 1.0, "passes": 8.7, "optimizer": 0.3, "transfer": 1.0}
    expected |= {"assemble": 0.1, "publish": 0.5, "load": 0.2, "books": 0.2}
    assert found == pytest.approx(expected)
    assert list(found)[:2] == ["engine", "passes"]


@given(st.dictionaries(st.sampled_from(["generate", "update", "publish", "evaluate", "checkpoint"]), SECONDS),
       st.lists(st.tuples(SECONDS, SECONDS, SECONDS), max_size=3), SECONDS, SECONDS)  # fmt: skip
def test_the_parts_sum_to_the_wall_time(phases, episodes, seconds, own):
    acted = [trajectory(whole, engine=engine, environment=environment) for whole, engine, environment in episodes]
    found = breakdown(phases, seconds, trajectories=acted, learner={"learner/seconds": own})
    assert sum(found.values()) == pytest.approx(seconds, abs=1e-6)
    assert all(name.startswith("cluster/") and name.endswith("_s") for name in found)
