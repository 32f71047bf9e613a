"""The buffer's promises: bounded lag, places refilled, nothing counted twice."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.types import Assignment, Group, Message, Observation, Span, Stop, Task, Trajectory, Turn
from learner.buffer import Buffer, Verdict, lag
from learner.credits import Credits

TASK = Task("t", "shop", "1", (), (), {}, ())
ASSIGNMENT = Assignment(0, TASK, "s", 0.0, "progress", 2)


def group(number: int, version: int, rewards: tuple[float, ...] = (0.0, 1.0)) -> Group:
    turn = Turn((1,), (2,), (-0.5,), (Span(version, 0, 1),), Message("assistant", ""), Observation(()))
    trajectories = (Trajectory(f"{number}-{k}", "t", (turn,), Stop.DONE, reward=r) for k, r in enumerate(rewards))
    return Group(replace(ASSIGNMENT, id=number), tuple(trajectories))


async def admitted(buffer: Buffer) -> int:
    count = 0
    while True:
        try:
            await asyncio.wait_for(buffer.admit(), 0.01)
        except TimeoutError:
            return count
        count += 1


async def test_synchronous_admits_one_batch_and_waits_for_the_version() -> None:
    buffer = Buffer(groups_per_batch=3, max_lag=0, max_refills=9)
    assert await admitted(buffer) == 3
    for number in (2, 0, 1):
        assert await buffer.put(group(number, 0)) is Verdict.ACCEPTED
    assert [g.assignment.id for g in await buffer.take()] == [0, 1, 2]
    assert await admitted(buffer) == 0
    await buffer.advance(1)
    assert await admitted(buffer) == 0  # the engines do not serve it yet
    await buffer.serve(1)
    assert await admitted(buffer) == 3
    await buffer.serve(2)
    assert await admitted(buffer) == 0  # the learner's step is not done yet


async def test_a_group_without_signal_is_refilled() -> None:
    buffer = Buffer(groups_per_batch=2, max_lag=0, max_refills=9)
    await admitted(buffer)
    assert await buffer.put(group(0, 0, (1.0, 1.0))) is Verdict.FILTERED
    assert await admitted(buffer) == 1


async def test_where_the_baseline_is_the_batchs_a_group_of_equal_rewards_is_taken_too() -> None:
    buffer = Buffer(groups_per_batch=1, max_lag=0, max_refills=9, teaches=Credits("reward").teaches)
    await admitted(buffer)
    assert await buffer.put(group(0, 0, (1.0, 1.0))) is Verdict.ACCEPTED


async def test_refills_end_and_the_batch_is_smaller() -> None:
    buffer = Buffer(groups_per_batch=2, max_lag=0, max_refills=1)
    await admitted(buffer)
    for number in range(2):
        await buffer.put(group(number, 0, (1.0, 1.0)))
    assert await admitted(buffer) == 1
    await buffer.put(group(2, 0))
    assert [g.assignment.id for g in await buffer.take()] == [2]


async def test_too_old_is_dropped_when_handed_in_and_when_weights_advance() -> None:
    buffer = Buffer(groups_per_batch=2, max_lag=1, max_refills=9)
    assert await admitted(buffer) == 4
    await buffer.put(group(0, 0))
    assert await buffer.advance(1) == ()
    assert [g.assignment.id for g in await buffer.advance(2)] == [0]
    assert await buffer.put(group(1, 0)) is Verdict.STALE
    assert await buffer.put(group(2, 1)) is Verdict.ACCEPTED


async def test_restore_keeps_groups_and_admits_only_the_rest() -> None:
    buffer = Buffer(groups_per_batch=2, max_lag=1, max_refills=9)
    await admitted(buffer)
    await buffer.put(group(0, 0))
    other = Buffer(groups_per_batch=2, max_lag=1, max_refills=9)
    other.restore(buffer.state())
    assert await admitted(other) == 3


@pytest.mark.parametrize("max_lag", [0, 1, 3])
@given(lags=st.lists(st.integers(0, 5), min_size=1, max_size=40))
@settings(max_examples=30)
def test_nothing_taken_is_older_than_max_lag(max_lag: int, lags: list[int]) -> None:
    async def play() -> None:
        buffer = Buffer(groups_per_batch=1, max_lag=max_lag, max_refills=9)
        version = 0
        for number, age in enumerate(lags):
            await buffer.put(group(number, max(0, version - age)))
            if buffer.num_ready:
                taken = await buffer.take()
                assert all(version - g.version <= max_lag for g in taken)
            version += 1
            await buffer.advance(version)

    asyncio.run(play())


@pytest.mark.parametrize("max_lag", [0, 1, 3])
@given(moves=st.lists(st.sampled_from(["admit", "finish", "learn", "load"]), max_size=80))
def test_nothing_is_dropped_for_its_age_however_late_engines_load(max_lag: int, moves: list[str]) -> None:
    """Groups of constant length that begin with what the engines serve: pacing alone keeps them young enough."""

    async def play() -> None:
        buffer = Buffer(groups_per_batch=2, max_lag=max_lag, max_refills=9)
        number = version = served = 0
        open_groups: list[Group] = []
        for move in moves:
            if move == "admit":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await buffer.admit()
                        open_groups.append(group(number := number + 1, served))
            elif move == "finish" and open_groups:
                assert await buffer.put(open_groups.pop(0)) is Verdict.ACCEPTED
            elif move == "learn" and buffer.num_ready >= 2:
                assert all(version - one.version <= max_lag for one in await buffer.take())
                version += 1
                assert await buffer.advance(version) == ()
            elif move == "load":
                served = version
                await buffer.serve(served)

    asyncio.run(play())


def test_an_experts_episode_has_no_age() -> None:
    sampled, (first, *_) = group(0, 3), group(1, 0).trajectories
    expert = replace(sampled, trajectories=(replace(first, turns=(replace(first.turns[0], versions=()),)),))
    assert lag([sampled, expert], 5) == 2 and lag([expert], 5) == 0
