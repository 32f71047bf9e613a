"""Segments of an expert's way, and what of a group is imitated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.types import Assignment, Author, Group, Message, Observation, Span, Stop, Task, Trajectory, Turn
from learner.batch import assemble
from learner.credits import Credits
from learner.imitation import CHOICES, IMITATIONS, depth, eef, success
from learner.segments import Segment, segments

B, H, R, U = Segment.BENEFICIAL, Segment.HARMFUL, Segment.RECOVERY, Segment.UNKNOWN
TASK = Task("t", "shop", "1", (), (), {}, ())
PATTERNS = [pattern for count in range(1, 9) for pattern in product((False, True), repeat=count)]


def turn(author: Author = Author.POLICY, token: int = 2, version: int = 0) -> Turn:
    is_policy = author is Author.POLICY
    logprobs, spans = ((-0.5,), (Span(version, 0, 1),)) if is_policy else ((0.0,), ())
    return Turn((1,), (token,), logprobs, spans, Message("assistant", ""), Observation(()), author, temperature=0.7)


def sibling(id: str, begins: int, *, won: bool, own: int = 2, version: int = 0, stop: Stop = Stop.DONE) -> Trajectory:
    turns = (*(turn(Author.EXPERT, 10 + n) for n in range(begins)), *[turn(version=version)] * own)
    return Trajectory(id, "t", turns, stop, float(won), success=won)


def group(*siblings: Trajectory, credit: str = "eef") -> Group:
    return Group(Assignment(0, TASK, "s", 0.0, "progress", len(siblings), credit=credit), siblings)


def along(pattern: Sequence[bool], interval: int = 2) -> Group:
    """One simulation from each of the states of one expert."""
    return group(*(sibling(f"0-{n}", n * interval, won=won) for n, won in enumerate(pattern)))


def test_the_papers_example():
    """Fig. 1: simulations fail from s0 and s2l, succeed from sl and s3l."""
    assert segments([False, True, False, True]) == (B, H, R)


def test_segments_of_every_pattern():
    for pattern in PATTERNS:
        found = segments(pattern)
        assert len(found) == len(pattern) - 1
        for at, segment in enumerate(found):
            before, after, earlier = pattern[at], pattern[at + 1], any(pattern[:at])
            assert (segment is H) == (before and not after)
            assert (segment is R) == (not before and after and earlier)
            assert (segment is B) == (not before and after and not earlier)
            assert (segment is U) == (before == after)
        # What helped and what harmed takes turns, whatever lies between; at most the first is no recovery.
        telling = [segment for segment in found if segment is not U]
        assert all((one is H) != (other is H) for one, other in zip(telling, telling[1:], strict=False))
        assert found.count(B) <= 1 and (R not in found or H in found)


@pytest.mark.parametrize("name", ["eef", "eef_initial"])
def test_only_helpful_expert_actions_and_own_solutions_are_kept(name: str):
    helpful = {B, R} if name == "eef" else {B}
    for pattern in PATTERNS:
        siblings, found = along(pattern), segments(pattern)
        rows = IMITATIONS[name](siblings, CHOICES["all"])
        for at, (one, row) in enumerate(zip(siblings.trajectories, rows, strict=True)):
            is_kept = pattern[at] and (at == 0 or found[at - 1] in helpful)
            assert bool(row) == is_kept
            if is_kept:
                assert list(row) == [0.0] * (2 * (at - 1)) + [1.0] * (2 if at else 0) + [1.0] * 2
                assert len(row) == len(one.turns)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12), st.sampled_from(sorted(CHOICES)))
def test_failures_are_never_imitated_and_one_solution_is_enough(played: list[tuple[int, bool]], choice: str):
    siblings = group(*(sibling(f"0-{n}", begins, won=won) for n, (begins, won) in enumerate(played)))
    rows = eef(siblings, CHOICES[choice])
    kept = [one for one, row in zip(siblings.trajectories, rows, strict=True) if row]
    assert all(one.success for one in kept)
    if choice != "all":
        assert len({depth(one) for one in kept}) == len(kept)
    assert {depth(one) for one in kept} == {
        depth(one) for one, row in zip(siblings.trajectories, eef(siblings, CHOICES["all"]), strict=True) if row
    }


def test_a_state_counts_as_solved_where_half_of_its_simulations_succeed():
    first, second = (sibling(f"0-{n}", 0, won=False) for n in (0, 1))
    for wins, helps in ((1, False), (2, True)):
        others = [sibling(f"0-{2 + n}", 1, won=n < wins) for n in range(4)]
        rows = eef(group(first, second, *others), CHOICES["all"])
        assert [bool(row) for row in rows] == [False, False, *(helps and n < wins for n in range(4))]


def test_choices():
    short, new, old = sibling("0-2", 0, won=True, own=1), sibling("0-1", 0, won=True, version=3), sibling("0-0", 0, won=True)
    solutions = [old, new, short]
    assert CHOICES["shortest"](solutions) == [short] and CHOICES["recent"](solutions) == [new]
    assert list(CHOICES["all"](solutions)) == solutions
    assert CHOICES["random"](solutions) == CHOICES["random"](solutions) and CHOICES["random"](solutions)[0] in solutions
    assert all(not choice([]) for choice in CHOICES.values())


def test_a_faulted_sibling_is_neither_a_state_nor_imitated():
    lost = sibling("0-1", 0, won=True, stop=Stop.FAULT)
    assert eef(group(sibling("0-0", 0, won=False), lost, sibling("0-2", 1, won=True)), CHOICES["all"])[1:] == ((), (1.0,) * 3)
    assert success(group(lost, sibling("0-0", 0, won=True)), CHOICES["all"]) == ((), (1.0, 1.0))
    assert eef(group(lost), CHOICES["all"]) == ((),)


def test_a_simulation_cut_off_before_the_policy_acted_says_nothing_of_a_state():
    """Solved from everywhere: were the one cut off on the expert's way a failure, the next stretch would be a recovery."""
    cut = sibling("0-2", 3, won=False, own=0, stop=Stop.DEADLINE)
    siblings = group(*(sibling(f"0-{n}", 2 * n, won=True) for n in (0, 1)), cut, sibling("0-3", 6, won=True))
    assert [bool(row) for row in eef(siblings, CHOICES["all"])] == [True, False, False, False]


def test_a_group_that_never_came_to_be_played_teaches_nothing_whatever_its_credit():
    lost = group(*(Trajectory(f"0-{n}", "t", (), Stop.FAULT) for n in range(2)))
    sound = sibling("0-2", 0, won=True)
    assert not any(Credits(name).teaches(lost) for name in ("reward", "grpo", "tree", "success", "eef"))
    assert not group(*lost.trajectories, sound, credit="").has_signal  # a fault's reward is none


def test_cloning_is_success_of_the_expert_alone():
    alone = sibling("0-0", 3, won=True, own=0)
    assert success(group(alone), CHOICES["all"]) == ((1.0,) * 3,)
    assert depth(alone) == 3 and group(alone).version == -1


def test_a_batch_learns_from_whatever_credit_the_assignment_names():
    won, failed = sibling("0-0", 0, won=True), sibling("0-1", 0, won=False)
    credits = Credits("grpo")
    assert credits.teaches(group(won, won, credit="success")) and not credits.teaches(group(won, won, credit=""))
    assert not credits.teaches(group(failed, failed, credit="success")) and credits.teaches(
        group(failed, failed, credit="reward")
    )
    assert credits.imitates(group(won, credit="eef")) and not credits.imitates(group(won, credit=""))
    batch = assemble([group(won, credit="success"), group(won, failed, credit="")], credits, imitates=credits.imitates)
    (micro,) = batch.shards[0]
    # Imitated tokens are fitted by the bare model; the others keep the engine's log-probability and temperature.
    assert micro.imitated_A.tolist() == [True, True, False, False, False, False]
    assert micro.temperatures_A.tolist() == pytest.approx([1, 1, 0.7, 0.7, 0.7, 0.7])
    assert micro.logprobs_A.tolist() == pytest.approx([0, 0, -0.5, -0.5, -0.5, -0.5])


def test_masked_expert_turns_are_context():
    """F S F S: the recovery is trained on with what led into it as context alone."""
    recovery = along([False, True, False, True], interval=1)
    batch = assemble([recovery], Credits("eef"), imitates=Credits("eef").imitates)
    (micro,) = batch.shards[0]
    # The first expert action with two of the policy's own, then the third expert action with two of its own.
    assert sorted(micro.targets_A.tolist()) == [2, 2, 2, 2, 10, 12]
    assert set(micro.advantages_A.tolist()) == {1.0}
