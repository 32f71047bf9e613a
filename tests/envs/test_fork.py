"""Replaying what was said restores an episode, in any environment; and where it does not, that is seen."""

from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import pytest

from cluster.cli import main
from deploy.fork import forks, restored_alike
from envs.environment import environment
from envs.shop import Shop
from envs.types import Message, Observation, ToolCall

NUM_PAIRS = 100


@pytest.mark.parametrize("name", ["shop", "bfcl", "webshop"])
def test_what_is_restored_goes_on_alike(name: str) -> None:
    assert all(islice(forks(name), NUM_PAIRS))


def test_so_do_constructed_environments(tmp_path: Path) -> None:
    assert main(["construct", "--count", "12", "--out", str(tmp_path)]) == 0
    assert all(islice(forks(f"constructed:{tmp_path}"), NUM_PAIRS))


def test_an_environment_that_answers_otherwise_each_time_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()

    class Counting(Shop):
        def step(self, message: Message) -> Observation:
            answer = super().step(message)
            return Observation((Message("user", str(next(numbers))),), answer.done, answer.signals)

    monkeypatch.setattr("deploy.fork.environment", lambda name: replace(environment(name), make=Counting))
    task = environment("shop").taskset("train", "1")[0]
    assert restored_alike(task, [Message("assistant", "", (ToolCall("checkout", {}),))] * 3, [1]) == [False]
