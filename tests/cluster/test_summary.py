from dataclasses import replace

import pytest

from cluster.summary import entropy, summarise
from envs.environment import environment
from envs.types import Assignment, Author, Group, Message, Observation, Stop, Trajectory, Turn


def group(number: int, *, start: tuple[Message, ...], successes: list[bool]) -> Group:
    task = environment("shop").taskset("train", "1")[0]
    turns = tuple(Turn((), (), (), (), message, Observation(()), Author.EXPERT) for message in start)
    parts = {"success": 1.0, "calls": 0.5}
    trajectories = tuple(
        Trajectory(str(k), task.id, turns, Stop.DONE, parts=parts, success=won) for k, won in enumerate(successes)
    )
    return Group(Assignment(number, task, "easy", 0.0, "progress", len(successes), start=start), trajectories)


def test_success_is_that_of_episodes_played_from_their_beginning():
    helped = group(0, start=(Message("assistant", ""),), successes=[True, True])
    alone = group(1, start=(), successes=[True, False])
    assert summarise([helped, alone], [], version=0, seconds=1.0)["rewards/success"] == pytest.approx(0.5)
    assert summarise([helped], [], version=0, seconds=1.0)["rewards/success"] == 1.0


def test_single_messages_are_no_episodes_that_could_succeed():
    alone = group(0, start=(), successes=[False, True])
    single = Group(replace(alone.assignment, max_turns=1), alone.trajectories)
    assert "rewards/success" not in summarise([single], [], version=0, seconds=1.0)
    assert summarise([single, alone], [], version=0, seconds=1.0)["rewards/success"] == 0.5


def test_entropy_is_the_mean_surprise_of_what_the_policy_sampled():
    said, seen = Message("assistant", ""), Observation(())
    turns = (Turn((1,), (2, 3), (-0.5, -1.5), (), said, seen), Turn((4,), (5,), (0.0,), (), said, seen, Author.EXPERT))
    one = Trajectory("0", "t", (*turns, Turn((6,), (7,), (-4.0,), (), said, seen)), Stop.DONE)
    sampled = Group(group(0, start=(), successes=[]).assignment, (one, one))
    assert entropy([sampled]) == pytest.approx(2.0)
    assert entropy([]) is None
    assert summarise([sampled], [sampled], version=0, seconds=1.0)["actors/entropy"] == pytest.approx(2.0)


def test_cancelled_siblings_are_told_with_their_lengths():
    said, seen = Message("assistant", ""), Observation(())
    whole = Trajectory("0", "t", (Turn((1,), (2, 3), (0.0, 0.0), (), said, seen),), Stop.DONE)
    assignment = group(0, start=(), successes=[]).assignment
    found = summarise([Group(assignment, (whole, whole), (40, 60)), Group(assignment, (whole,))], [], version=0, seconds=1.0)
    assert (found["actors/tokens_each"], found["actors/cancelled"], found["actors/cancelled_tokens_each"]) == (2.0, 2.0, 50.0)
    assert "actors/cancelled" not in summarise([Group(assignment, (whole,))], [], version=0, seconds=1.0)
