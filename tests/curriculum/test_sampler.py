from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.sampler import Tally, frontier, next_level, uniform
from envs.types import Task


def tasks(num: int) -> list[Task]:
    return [Task(f"t{at}", "shop", "1", (), (), {}, ()) for at in range(num)]


@settings(deadline=None)
@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=5), st.integers(1, 200))
def test_levels_keep_their_shares_all_along(weights, num):
    shares = {str(at): weight / sum(weights) for at, weight in enumerate(weights)}
    drawn: Counter[str] = Counter()
    for _ in range(num):
        drawn[next_level(shares, drawn)] += 1
        assert all(abs(drawn[level] - share * drawn.total()) < len(shares) for level, share in shares.items())


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 3), st.text(max_size=8))
def test_uniform_gives_each_task_once_per_pass(num, lap, key):
    pool = tasks(num)
    drawn = [uniform(pool, lap * num + place, key=key).task.id for place in range(num)]
    assert sorted(drawn) == sorted(task.id for task in pool)


def test_passes_and_keys_shuffle_differently():
    pool = tasks(50)
    orders = {
        tuple(uniform(pool, at, key=key).task.id for at in span) for key in ("a", "b") for span in (range(50), range(50, 100))
    }
    assert len(orders) == 4


@settings(deadline=None)
@given(st.integers(0, 2**31), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=20))
def test_frontier_is_the_same_for_the_same_key_and_counts(seed, rows):
    pool = tasks(len(rows))
    tallies = {task.id: Tally(max(row), min(row)) for task, row in zip(pool, rows, strict=True)}
    assert frontier(pool, tallies, key=str(seed)) == frontier(pool, dict(tallies), key=str(seed))


def test_frontier_prefers_sometimes_then_untried_and_never_starves():
    pool = tasks(4)
    tallies = {"t0": Tally(8, 3), "t2": Tally(8, 8), "t3": Tally(8, 0)}
    drawn = Counter(frontier(pool, tallies, key=str(at)).task.id for at in range(3000))
    assert drawn["t0"] > 2 * drawn["t1"] > 4 * drawn["t2"] > 0
    assert drawn["t3"] > 0


def test_the_reason_tells_the_figures():
    pool = tasks(1)
    assert frontier(pool, {"t0": Tally(8, 3)}, key="").reason == "solved 3 of 8 of late"
    assert frontier(pool, {}, key="").reason == "not tried yet"
    assert uniform(tasks(10), 23, key="").reason == "task 4 of 10 in pass 3"


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), max_size=20))
def test_a_tally_stays_sane_and_follows_the_policy(solved):
    tally = Tally()
    for num in solved:
        tally = tally.plus(8, num)
        assert 0 <= tally.solved <= tally.tried < 16
    for _ in range(5):
        tally = tally.plus(8, 8)
    assert tally.solved == tally.tried
