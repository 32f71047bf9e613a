"""τ²-bench's telecom tasks, judged as the package judges them."""

import random
import sys
from functools import cache
from unittest.mock import MagicMock

import pytest
from tau2.data_model.message import AssistantMessage, ToolMessage
from tau2.data_model.message import ToolCall as PackageCall
from tau2.domains.telecom.environment import get_environment

from envs import environment as registry
from envs.environment import environment
from envs.tau2.telecom import LEVELS, Telecom, _tasks, oracle, taskset
from envs.types import Message, Stop, Task, ToolCall, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics
from rewards.user_turns import verdict

SPLITS = ("train", "validation", "test")


def played(task: Task, messages: list[Message]) -> Trajectory:
    env = Telecom()
    env.reset(task)
    turns = []
    for message in messages:
        turns.append(Turn((), (), (), (), message, env.step(message)))
    return Trajectory("t", task.id, tuple(turns), Stop.DONE)


@cache
def evaluators() -> tuple:
    """The package's own, which import pandas for tables that nobody asks for here."""
    has_pandas = "pandas" in sys.modules
    sys.modules.setdefault("pandas", MagicMock())
    from tau2.evaluator.evaluator_action import ActionEvaluator
    from tau2.evaluator.evaluator_env import EnvironmentEvaluator

    if not has_pandas:
        del sys.modules["pandas"]
    return EnvironmentEvaluator, ActionEvaluator


def official(task: Task, trajectory: Trajectory) -> float:
    """The package's own reward of the same calls and answers."""
    package = _tasks()[str(task.payload["id"])]
    messages: list[AssistantMessage | ToolMessage] = []
    for turn in trajectory.turns:
        for outcome in turn.observation.signals.outcomes:
            call = PackageCall(id=str(len(messages)), name=outcome.call.name, arguments=dict(outcome.call.arguments))
            messages.append(AssistantMessage(role="assistant", tool_calls=[call]))
            messages.append(ToolMessage(id=call.id, role="tool", content=str(outcome.result), requestor="assistant"))
    by_state, by_actions = evaluators()
    reward = by_state.calculate_reward(get_environment, package, messages, solo_mode=True).reward
    if "ACTION" in str(package.evaluation_criteria.reward_basis):
        reward *= by_actions.calculate_reward(package, messages).reward
    return reward


def sample(count: int) -> list[Task]:
    tasks = [task for split in SPLITS for level in LEVELS for task in taskset(split, level)]
    return random.Random(0).sample(tasks, count)


def test_the_splits_are_the_packages_and_share_no_task():
    counts = [len({task.id for level in LEVELS for task in taskset(split, level)}) for split in SPLITS]
    assert counts == [2285 - 40 - 90, 90, 40]
    assert len({task.id for split in SPLITS for level in LEVELS for task in taskset(split, level)}) == 2285


def test_the_reference_solves_every_test_task_for_us_and_for_the_package():
    for level in LEVELS:
        for task in taskset("test", level):
            trajectory = played(task, list(oracle(task)))
            assert verdict(task, trajectory) == "" and official(task, trajectory) == 1.0, task.id


def test_the_rubric_of_a_run_pays_the_reference_in_full():
    task = taskset("test", "service_issue")[0]
    trajectory = rubrics(RewardsConfig())["progress"](task, played(task, list(oracle(task))))
    assert trajectory.success and trajectory.parts["progress"] == trajectory.parts["calls"] == 1.0


def test_verdicts_equal_the_packages_where_actions_are_left_out_or_wrong():
    rng, verdicts = random.Random(1), []
    for task in sample(60):
        messages = list(oracle(task))
        if len(messages) > 2 and rng.random() < 0.7:
            messages.pop(rng.randrange(len(messages) - 1))
        if rng.random() < 0.5:
            messages.insert(
                0, Message("assistant", "", (ToolCall("toggle_airplane_mode", {}), ToolCall("no_such_tool", {"a": 1})))
            )
        trajectory = played(task, messages)
        verdicts.append(verdict(task, trajectory) == "")
        assert verdicts[-1] == (official(task, trajectory) == 1.0), task.id
    assert 5 < sum(verdicts) < 55


def test_an_episode_replayed_is_the_same_and_leaves_nothing_behind():
    task = sample(1)[0]
    first = played(task, list(oracle(task)))
    assert played(task, list(oracle(task))).turns == first.turns


@pytest.mark.parametrize("arguments", [{"tool_name": "x"}, {"requestor": "user"}, {"self": 1}, {"a": [1] * 1000}])
def test_odd_arguments_are_errors_of_the_tool(arguments: dict):
    env = Telecom()
    env.reset(sample(1)[0])
    outcome = env.step(Message("assistant", "", (ToolCall("toggle_airplane_mode", arguments),))).signals.outcomes[0]
    assert outcome.error


def test_an_environment_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "odd", "envs.no_such_module")
    with pytest.raises(ValueError, match="odd needs the package envs.no_such_module"):
        environment("odd")
