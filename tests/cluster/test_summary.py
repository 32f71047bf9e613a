import pytest

from cluster.summary import summarise
from envs.environment import environment
from envs.types import Assignment, Group, Message, Stop, Trajectory


def group(number: int, *, start: tuple[Message, ...], successes: list[bool]) -> Group:
    task = environment("shop").taskset("train", "1")[0]
    trajectories = tuple(Trajectory(str(k), task.id, (), Stop.DONE, success=won) for k, won in enumerate(successes))
    return Group(Assignment(number, task, "easy", 0.0, "progress", len(successes), start=start), trajectories)


def test_success_is_that_of_episodes_played_from_their_beginning():
    helped = group(0, start=(Message("assistant", ""),), successes=[True, True])
    alone = group(1, start=(), successes=[True, False])
    assert summarise([helped, alone], [], version=0, seconds=1.0)["rewards/success"] == pytest.approx(0.5)
    assert summarise([helped], [], version=0, seconds=1.0)["rewards/success"] == 1.0
