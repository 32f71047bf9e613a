from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.types import Assignment, Author, Group, Message, Observation, Signals, Span, Stop, Task, Trajectory, Turn
from learner.credit import CREDITS, grpo, mean, rloo, tree
from learner.credit import turns as by_turns


def turn(author: Author = Author.POLICY) -> Turn:
    return Turn((1,), (2,), (-0.5,), (Span(0, 0, 1),), Message("assistant", ""), Observation(()), author)


def group(*rewards: float, faults: tuple[int, ...] = (), num_turns: int = 1) -> Group:
    task = Task("t", "shop", "easy", (), (), {}, ())
    return Group(
        Assignment(0, task, "one", 0.0, "solve", len(rewards)),
        tuple(
            Trajectory(
                id=f"{index}",
                task_id="t",
                turns=(turn(),) * num_turns,
                stop=Stop.FAULT if index in faults else Stop.DONE,
                reward=reward,
                success=reward >= 1,
            )
            for index, reward in enumerate(rewards)
        ),
    )


def firsts(advantages: tuple[tuple[float, ...], ...]) -> list[float]:
    return [entry[0] for entry in advantages if entry]


def test_hand_values():
    siblings = group(1.0, 0.0, 0.0, 1.0)
    assert firsts(mean(siblings)) == [0.5, -0.5, -0.5, 0.5]
    assert firsts(grpo(siblings)) == pytest.approx([1, -1, -1, 1], rel=1e-5)
    assert firsts(rloo(siblings)) == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])


def test_every_turn_of_the_policy_has_the_advantage_and_an_experts_has_none():
    siblings = group(1.0, 0.0, num_turns=3)
    mixed = Trajectory("x", "t", (turn(Author.EXPERT), turn()), Stop.DONE, reward=1.0)
    assert mean(siblings) == ((0.5, 0.5, 0.5), (-0.5, -0.5, -0.5))
    assert mean(Group(siblings.assignment, (mixed, siblings.trajectories[1])))[0] == (0.0, 0.5)


@pytest.mark.parametrize("name", sorted(CREDITS))
def test_a_faulted_sibling_gets_nothing_and_moves_nothing(name: str):
    credit = CREDITS[name]
    with_fault = credit(group(1.0, 77.0, 0.0, faults=(1,)))
    assert with_fault[1] == ()
    assert (with_fault[0], with_fault[2]) == credit(group(1.0, 0.0))


@pytest.mark.parametrize("name", ["grpo", "mean", "rloo", "tree"])
@pytest.mark.parametrize("rewards", [(0.3, 0.3, 0.3), (0.1 + 0.2, 0.3), (5.0,)])
def test_no_signal_is_exactly_zero(name: str, rewards: tuple[float, ...]):
    assert set(firsts(CREDITS[name](group(*rewards)))) == {0.0}


def test_a_group_of_faults_has_no_credit():
    assert grpo(group(0.0, 1.0, faults=(0, 1))) == ((), ())


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="'1' has the reward nan"):
        grpo(group(1.0, math.nan))


rewards = st.lists(st.floats(-10, 10), min_size=2, max_size=16)


@given(rewards)
def test_advantages_sum_to_zero(values: list[float]):
    for credit in (mean, rloo, grpo):
        assert sum(firsts(credit(group(*values)))) == pytest.approx(0, abs=1e-6)


@given(rewards, st.floats(-5, 5))
def test_a_shift_of_all_rewards_changes_nothing(values: list[float], shift: float):
    # On a grid, so that no spread lies at the edge of what counts as signal.
    grid = [round(value, 2) for value in values]
    moved = [value + shift for value in grid]
    for credit in (mean, rloo, grpo):
        assert firsts(credit(group(*moved))) == pytest.approx(firsts(credit(group(*grid))), abs=1e-6)


@given(rewards)
def test_rloo_is_the_reward_less_the_others_mean(values: list[float]):
    grid = [round(value, 2) for value in values]
    others = [(sum(grid) - value) / (len(grid) - 1) for value in grid]
    expected = [value - other for value, other in zip(grid, others, strict=True)]
    assert firsts(rloo(group(*grid))) == pytest.approx(expected, abs=1e-9)


def path(*actions: str, earns: tuple[float, ...]) -> Trajectory:
    """One assistant message per word; "." ends a user turn. What is read depends on the action before alone."""
    turns: list[Turn] = []
    read = 0
    for word in actions:
        code = sum(map(ord, word))
        signals = Signals(state={}) if word == "." else Signals()
        observation = Observation((), signals=signals)
        turns.append(Turn((read,), (code,), (-0.5,), (Span(0, 0, 1),), Message("assistant", word), observation))
        read = code
    return Trajectory("x", "t", tuple(turns), Stop.DONE, reward=sum(earns), turn_rewards=earns)


def siblings(*trajectories: Trajectory) -> Group:
    return Group(group(0.0).assignment, trajectories)


def test_tree_blames_the_action_that_went_wrong_and_not_the_right_one_before_it():
    found, wrong, lost = ("find", "add", "."), ("find", "price", "."), ("buy", ".")
    rows = tree(siblings(*(path(*words, earns=(pay,)) for words, pay in ((found, 1.0), (wrong, 0.5), (lost, 0.0)))))
    std = (1 / 6) ** 0.5
    assert rows[0] == pytest.approx((0.25 / std, 0.25 / std, 0.5 / std), rel=1e-4)
    assert rows[1] == pytest.approx((0.25 / std, -0.25 / std, 0.0), rel=1e-4, abs=1e-6)
    assert rows[2] == pytest.approx((-0.5 / std, -0.5 / std), rel=1e-4)


def test_tree_judges_a_user_turn_by_what_it_and_later_ones_earned():
    # The first user turn is lost by one and won by the other; the second the other way round.
    late, early = path("a", ".", "c", ".", earns=(0.0, 1.0)), path("b", ".", "c", ".", earns=(1.0, 0.0))
    rows = tree(siblings(late, early))
    assert rows[0] == pytest.approx((-1, -1, 1, 1), rel=1e-4)
    assert rows[1] == pytest.approx((1, 1, -1, -1), rel=1e-4)


def test_turns_judges_each_user_turn_by_its_own_outcome_alone():
    late, early = path("a", ".", "c", ".", earns=(0.0, 1.0)), path("b", ".", "d", ".", earns=(1.0, 0.0))
    rows = by_turns(siblings(late, early))
    assert rows[0] == pytest.approx((-1, -1, 1, 1), rel=1e-4)
    assert rows[1] == pytest.approx((1, 1, -1, -1), rel=1e-4)
    # One that never came to the second user turn is no baseline for it.
    stopped = path("x", "y", earns=(0.0, 0.0))
    rows = by_turns(siblings(late, path("b", ".", "d", ".", earns=(1.0, 1.0)), stopped))
    assert rows[0][2:] == rows[1][2:] == (0.0, 0.0) and len(rows[2]) == 2
    assert rows[2] == pytest.approx((-(0.5**0.5),) * 2, rel=1e-4)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=16))
def test_turns_is_grpo_where_there_is_one_user_turn(values: list[float]):
    grid = [round(value, 2) for value in values]
    alone = siblings(*(path(f"word {at}", "then", earns=(value,)) for at, value in enumerate(grid)))
    expected = [value for value in firsts(grpo(group(*grid))) for _ in range(2)]
    assert [value for row in by_turns(alone) for value in row] == pytest.approx(expected, abs=1e-9)


def test_tree_gives_nothing_where_all_did_the_same():
    same = path("a", ".", earns=(1.0,))
    assert tree(siblings(same, same, same)) == ((0.0, 0.0),) * 3


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=16))
def test_tree_is_grpo_where_siblings_part_at_once(values: list[float]):
    grid = [round(value, 2) for value in values]
    parted = siblings(*(path(f"first {chr(65 + at)}", "then", earns=(value,)) for at, value in enumerate(grid)))
    expected = [value for value in firsts(grpo(group(*grid))) for _ in range(2)]
    assert [value for row in tree(parted) for value in row] == pytest.approx(expected, abs=1e-4)


def test_the_reward_itself_is_a_credit_whose_baseline_is_the_batchs():
    assert CREDITS["reward"](group(1.0, 0.25, num_turns=2)) == ((1.0, 1.0), (0.25, 0.25))
