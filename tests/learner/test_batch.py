from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.types import Assignment, Author, Group, Message, Observation, Span, Stop, Task, Trajectory, Turn
from learner.attention import descendants_end
from learner.batch import Batch, assemble, flatten
from learner.config import AGGREGATIONS
from learner.credit import CREDITS, mean

TASK = Task("t", "shop", "easy", (), (), {}, ())
SYSTEM = (1, 1, 2)


def sees(segments_S3: np.ndarray) -> np.ndarray:
    """[T, T]: which token sees which."""
    ends_T = descendants_end(segments_S3)
    places = np.arange(len(ends_T))
    return (places[None, :] <= places[:, None]) & (places[:, None] < ends_T[None, :])


def turn(context: Sequence[int], action: Sequence[int], author: Author = Author.POLICY) -> Turn:
    # A log-probability that tells of its token and place, so that a slip of one shows.
    logprobs = tuple(-(token + place / 100) for place, token in enumerate(action)) if author is Author.POLICY else ()
    spans = (Span(0, 0, len(action)),)
    return Turn(tuple(context), tuple(action), logprobs, spans, Message("assistant", ""), Observation(()), author)


def trajectory(*turns: Turn, reward: float = 0.0, stop: Stop = Stop.DONE) -> Trajectory:
    return Trajectory("a", "t", turns, stop, reward=reward)


def group(*trajectories: Trajectory) -> Group:
    return Group(Assignment(0, TASK, "one", 0.0, "solve", len(trajectories)), trajectories)


def actions(batch: Batch) -> list[tuple[int, float, float]]:
    """(target, logprob, advantage) of every entry of every rank, sorted."""
    micros = [micro for shard in batch.shards for micro in shard]
    return sorted(
        (int(target), round(float(logprob), 3), round(float(advantage), 3))
        for micro in micros
        for target, logprob, advantage in zip(micro.targets_A, micro.logprobs_A, micro.advantages_A, strict=True)
    )


def weighted(batch: Batch) -> list[tuple[int, float, float, float]]:
    """The same with each one's weight."""
    micros = [micro for shard in batch.shards for micro in shard]
    rows = [(m.targets_A, m.logprobs_A, m.advantages_A, m.weights_A) for m in micros]
    return sorted((int(t), *(round(float(x), 5) for x in rest)) for row in rows for t, *rest in zip(*row, strict=True))


def test_flatten_joins_the_turns():
    sample = flatten(trajectory(turn([1, 2], [3, 4]), turn([5], [6])), [0.5, -1.0])
    assert sample.tokens_L.tolist() == [1, 2, 3, 4, 5, 6]
    assert sample.mask_L.tolist() == [False, False, True, True, False, True]
    assert sample.logprobs_L.tolist() == pytest.approx([0, 0, -3.0, -4.01, 0, -6.0])
    assert sample.advantages_L.tolist() == [0, 0, 0.5, 0.5, 0, -1.0]


def test_an_experts_turn_is_masked_unless_its_advantage_says_otherwise():
    episode = trajectory(turn([1], [2], Author.EXPERT), turn([3], [4]))
    assert flatten(episode, [0.0, 1.0]).mask_L.tolist() == [False, False, False, True]
    assert flatten(episode, [1.0, 1.0]).mask_L.tolist() == [False, True, False, True]


def test_what_cannot_be_trained_on_is_refused():
    broken = Turn((1,), (2, 3), (-1.0,), (), Message("assistant", ""), Observation(()))
    with pytest.raises(ValueError, match="1 logprobs for 2 tokens"):
        flatten(trajectory(broken), [1.0])
    with pytest.raises(ValueError, match="begins with an action"):
        flatten(trajectory(turn([], [2])), [1.0])
    with pytest.raises(ValueError, match="2 advantages for 1 turns"):
        flatten(trajectory(turn([1], [2])), [1.0, 1.0])
    with pytest.raises(ValueError, match="no action token"):
        assemble([group(trajectory(turn([1], [2]), stop=Stop.FAULT))], mean)
    with pytest.raises(ValueError, match="'tokens'"):
        assemble([group(trajectory(turn([1], [2])))], mean, aggregation="tokens")


def test_siblings_that_sampled_alike_share_tokens_but_not_targets():
    batch = assemble([group(trajectory(turn([1], [2]), reward=1.0), trajectory(turn([1], [2])))], mean)
    ((micro,),) = batch.shards
    assert micro.tokens_T.tolist() == [1, 2]
    assert (micro.sources_A.tolist(), micro.targets_A.tolist()) == ([0, 0], [2, 2])
    assert micro.advantages_A.tolist() == [0.5, -0.5]


def test_the_weights_of_both_aggregations():
    siblings = group(trajectory(turn([1], [2, 3, 4]), reward=1.0), trajectory(turn([1], [5])))
    ((by_token,),) = assemble([siblings], mean, aggregation="token").shards
    ((by_sequence,),) = assemble([siblings], mean, aggregation="sequence").shards
    assert by_token.weights_A.tolist() == [0.25] * 4
    assert by_sequence.weights_A.tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])


def test_a_batch_that_is_not_full_counts_for_as_much_less():
    siblings = group(trajectory(turn([1], [2, 3, 4]), reward=1.0), trajectory(turn([1], [5])))
    for aggregation in AGGREGATIONS:
        ((quarter,),) = assemble([siblings], mean, aggregation=aggregation, full=4).shards
        ((whole,),) = assemble([siblings], mean, aggregation=aggregation, full=1).shards
        assert float(quarter.weights_A.sum()) == pytest.approx(0.25) and float(whole.weights_A.sum()) == pytest.approx(1)


def by_turns(group: Group) -> tuple[tuple[float, ...], ...]:
    """Advantages -1, 0, 1, 0, -1 ... along the turns, from another place for each sibling; a fault's are ()."""
    return tuple(
        () if one.stop is Stop.FAULT else tuple((0.0, 1.0, 0.0, -1.0)[(number + at) % 4] for at in range(len(one.turns)))
        for number, one in enumerate(group.trajectories)
    )


def test_what_has_no_advantage_is_left_out_with_all_that_follows_it():
    silent, telling = trajectory(turn([1], [2])), trajectory(turn([1], [3]), turn([4], [5, 6]), turn([7], [8]), turn([9], [10]))
    advantages = ((0.0,), (0.0, 1.0, 0.0, 0.0))
    ((micro,),) = assemble([group(silent, telling)], lambda _: advantages).shards
    assert micro.tokens_T.tolist() == [1, 3, 4, 5, 6]
    assert micro.targets_A.tolist() == [5, 6] and micro.weights_A.tolist() == pytest.approx([1 / 6] * 2)
    ((whole,),) = assemble([group(silent, telling)], lambda _: advantages, every_action=True).shards
    assert (whole.num_tokens, whole.num_actions) == (10, 6)


def test_ranks_without_work_get_padding():
    batch = assemble([group(trajectory(turn([1], [2])))], mean, num_ranks=3)
    assert [[micro.num_actions for micro in shard] for shard in batch.shards] == [[1], [0], [0]]
    assert [[micro.num_tokens for micro in shard] for shard in batch.shards] == [[2], [1], [1]]
    assert batch.num_tokens == 2


def test_a_trajectory_over_the_budget_is_whole_and_alone():
    long, short = trajectory(turn([1], range(2, 52)), reward=1.0), trajectory(turn([1], [2]))
    batch = assemble([group(long, short)], mean, max_tokens=10)
    assert sorted(micro.num_tokens for micro in batch.shards[0]) == [2, 51]


def test_ranks_are_balanced():
    groups = [group(*(trajectory(turn([g] * 20, [k] * (5 + 3 * g)), reward=k) for k in range(100, 104))) for g in range(8)]
    batch = assemble(groups, mean, num_ranks=2, max_tokens=100)
    loads = [sum(micro.num_tokens for micro in shard) for shard in batch.shards]
    assert max(loads) / min(loads) < 1.15


tokens = st.lists(st.integers(3, 6), min_size=1, max_size=6)
turns = st.lists(st.builds(turn, tokens, tokens), min_size=1, max_size=3)
trajectories = st.builds(
    lambda first, rest, reward, stop: trajectory(turn([*SYSTEM, *first.context], first.action), *rest, reward=reward, stop=stop),
    st.builds(turn, tokens, tokens),
    turns,
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([Stop.DONE, Stop.DONE, Stop.MAX_TURNS, Stop.FAULT]),
)
groups = st.lists(st.lists(trajectories, min_size=2, max_size=4).map(lambda all: group(*all)), min_size=1, max_size=4)


@settings(max_examples=50)
@given(groups, st.integers(1, 4), st.integers(10, 60), st.sampled_from(["token", "sequence"]))
def test_a_batch_holds_every_action_once(siblings: list[Group], num_ranks: int, max_tokens: int, aggregation: str):
    sound = [one for group in siblings for one in group.trajectories if one.stop is not Stop.FAULT]
    if not sound:
        return
    batch = assemble(siblings, mean, num_ranks=num_ranks, max_tokens=max_tokens, aggregation=aggregation, every_action=True)
    micros = [micro for shard in batch.shards for micro in shard]
    expected = [
        (token, round(float(np.float32(logprob)), 3))
        for one in sound
        for turn in one.turns
        for token, logprob in zip(turn.action, turn.logprobs, strict=True)
    ]
    assert Counter((target, logprob) for target, logprob, _ in actions(batch)) == Counter(expected)
    assert batch.num_actions == len(expected)
    assert len({len(shard) for shard in batch.shards}) == 1 and len(batch.shards) == num_ranks
    assert sum(float(micro.weights_A.sum()) for micro in micros) == pytest.approx(1, rel=1e-5)
    assert all(micro.num_tokens <= max(max_tokens, max(one.num_tokens for one in sound)) for micro in micros)
    for micro in micros:
        mask = sees(micro.segments_S3)
        for source, target in zip(micro.sources_A, micro.targets_A, strict=True):
            is_next = mask[:, source] & (micro.positions_T == micro.positions_T[source] + 1)
            assert target in micro.tokens_T[is_next]


@settings(max_examples=50)
@given(groups, st.integers(1, 3), st.sampled_from(["token", "sequence"]))
def test_leaving_out_changes_no_other_action(siblings: list[Group], num_ranks: int, aggregation: str):
    if all(one.stop is Stop.FAULT for group in siblings for one in group.trajectories):
        return
    whole, lean = (
        assemble(siblings, by_turns, num_ranks=num_ranks, aggregation=aggregation, every_action=every) for every in (True, False)
    )
    telling = [action for action in weighted(whole) if action[2]]
    assert weighted(lean) == (telling or weighted(whole))
    assert lean.num_actions == len(weighted(lean))
    if num_ranks == 1:
        # One forest each, this one within that; several ranks may part them at different places.
        assert lean.num_tokens <= whole.num_tokens


def test_advantages_are_normalized_over_the_batchs_actions():
    """REINFORCE++: two groups, whose rewards are compared with each other too. Three actions of 1, one of 0, two of 0.4."""
    first = group(trajectory(turn(SYSTEM, (5, 6, 7)), reward=1.0), trajectory(turn(SYSTEM, (8,)), reward=0.0))
    second = group(trajectory(turn(SYSTEM, (9, 4)), reward=0.4))
    values = np.asarray([1.0, 1.0, 1.0, 0.0, 0.4, 0.4])
    expected = sorted(((values - values.mean()) / values.std()).round(3).tolist())
    batch = assemble([first, second], CREDITS["reward"], normalize=True)
    assert sorted(advantage for _, _, advantage in actions(batch)) == pytest.approx(expected, abs=2e-3)


def test_a_batch_of_equal_rewards_has_no_advantage_once_normalized():
    alike = [group(trajectory(turn(SYSTEM, (5, 6)), reward=0.3), trajectory(turn(SYSTEM, (7,)), reward=0.3))]
    assert {advantage for _, _, advantage in actions(assemble(alike, CREDITS["reward"], normalize=True))} == {0.0}
