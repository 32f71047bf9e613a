"""τ²-bench's airline and retail with a simulated customer, judged as the package judges them."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
from tau2.data_model.tasks import RewardType

from cluster.config import Config, ConfigError
from cluster.preflight import check_levels
from curriculum.config import CurriculumConfig, StageConfig
from deploy.tau2_gold import Content, official, played
from envs.config import EnvsConfig
from envs.endpoint import EndpointError
from envs.tau2.customer import ENDS
from envs.tau2.domains import DOMAINS, criteria, package_tasks
from envs.tau2.service import MAX_ERRORS, MAX_MESSAGES, Service
from envs.tau2.users import ENTRY, LEVELS, oracle, taskset
from envs.types import Message, Stop, Task, ToolCall, Trajectory, Turn
from envs.user import KEY, MODEL, URL, words
from rewards.config import RewardsConfig, rubrics
from rewards.user_turns import verdict
from tests.envs.openai_server import answering

SPLITS = ("train", "validation", "test")
NUM_TASKS = 4  # of each level; python -m deploy.tau2_gold plays all
Heard = list[dict[str, str]]


def customer(say: Callable[[Heard], str]) -> AbstractContextManager[str]:
    """A server whose model says what `say` makes of the messages it is sent."""

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["model"] == "m" and asked["temperature"] == 0 and "tools" not in asked
        return {"role": "assistant", "content": say(asked["messages"])}

    return answering(answer)


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL, MODEL, KEY):
        monkeypatch.delenv(name, raising=False)


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(URL, url)
    monkeypatch.setenv(MODEL, "m")


def everything(level: str) -> list[Task]:
    return [task for split in SPLITS for task in taskset(split, level)]


def sample(level: str, count: int) -> list[Task]:
    """One whose customer has to be told something, one without any action, and others."""
    tasks, rng = everything(level), random.Random(level)
    telling = [task for task in tasks if len(task.truth[0]["state"]) > 1]
    idle = [task for task in tasks if not task.truth[0]["calls"]]
    others = [task for task in tasks if task not in telling and task not in idle]
    return [rng.choice(telling), rng.choice(idle), *rng.sample(others, count - 2)]


def changed(task: Task, kind: int) -> list[Message]:
    """The reference with nothing told, the last call left out, or an argument altered; where it has calls."""
    *acts, closing = oracle(task)
    if kind == 0:
        closing = replace(closing, content="It is done.")
    elif acts and kind % 2:
        acts.pop()
    elif acts:
        (call,) = acts[-1].calls
        altered = {key: f"{value}0" if isinstance(value, str) else value for key, value in call.arguments.items()}
        acts[-1] = replace(acts[-1], calls=(ToolCall(call.name, altered),))
    return [*acts, closing]


def test_the_test_split_is_the_packages_and_no_task_is_in_two() -> None:
    for level, counts in {"airline": [24, 6, 20], "retail": [60, 14, 40]}.items():
        assert [len(taskset(split, level)) for split in SPLITS] == counts
        assert len({task.id for task in everything(level)}) == sum(counts) == len(package_tasks(level))
        assert [task.payload["id"] for task in taskset("test", level)] == DOMAINS[level].splits()["test"]
    with pytest.raises(ValueError, match="no level 'mms_issue'; there are: airline, retail"):
        taskset("train", "mms_issue")
    with pytest.raises(ValueError, match="no split is called 'dev'"):
        taskset("dev", "retail")


def test_no_task_needs_a_model_to_be_judged() -> None:
    bases = {frozenset(criteria(level, id).reward_basis) for level in LEVELS for id in package_tasks(level)}
    assert bases == {frozenset({RewardType.DB, RewardType.COMMUNICATE})}


@pytest.mark.parametrize("level", LEVELS)
def test_the_reference_solves_tasks_for_us_and_for_the_package(level: str) -> None:
    for task in sample(level, NUM_TASKS)[:2]:
        trajectory = played(task, oracle(task))
        assert verdict(task, trajectory) == "" and official(task, trajectory) == 1.0, task.id
        assert rubrics(RewardsConfig())["progress"](task, trajectory).success


@pytest.mark.parametrize("level", LEVELS)
def test_verdicts_equal_the_packages_on_changed_paths(level: str) -> None:
    found: list[bool] = []
    for kind, task in enumerate(sample(level, NUM_TASKS)):
        trajectory = played(task, changed(task, kind))
        found.append(verdict(task, trajectory) == "")
        assert found[-1] == (official(task, trajectory) == 1.0), task.id
    assert 0 < sum(found) < NUM_TASKS


def test_customer_and_agent_know_only_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Heard] = []

    def say(messages: Heard) -> str:
        heard.append(messages)
        return ("<think>As the scenario says ...</think>I have a question.", "Go on.", "Thank you. ###STOP###")[len(heard) - 1]

    task = next(task for task in everything("airline") if len(task.truth[0]["calls"]) == 2)
    first, second, closing = oracle(task)
    env = Service()
    with customer(say) as url:
        point_to(monkeypatch, url)
        opening = env.reset(task)
        assert [one.role for one in opening.messages] == ["system", "user"]
        observations = [
            env.step(first),
            env.step(Message("assistant", "<think>secret</think><answer>One moment.</answer>")),
            env.step(replace(second, content=f"beside a call, of {task.id}")),
            env.step(Message("assistant", "[broken", malformed="not closed")),
            env.step(Message("assistant", "<think>nothing to say</think> ")),
            env.step(closing),
        ]
    assert [one.signals.state for one in observations] == [*[None] * 5, [True]]
    assert [one.done for one in observations] == [*[False] * 5, True]
    assert [one.signals.malformed for one in observations[3:5]] == ["not closed", "neither calls nor words"]
    told = [(one["role"], one["content"]) for one in heard[-1]]
    assert told[2:] == [
        ("assistant", "I have a question."),
        ("user", "One moment."),
        ("assistant", "Go on."),
        ("user", "It is done."),
    ]
    scenario = str(package_tasks("airline")[str(task.payload["id"])].user_scenario)
    assert told[0][0] == "system" and scenario in told[0][1] and "###OUT-OF-SCOPE###" in told[0][1]
    results = [str(outcome.result) for one in observations for outcome in one.signals.outcomes]
    assert len(results) == 2 and not any(text in content for text in [*results, task.id] for _, content in told)
    read = [message.content for one in (opening, *observations) for message in one.messages]
    instructions = package_tasks("airline")[str(task.payload["id"])].user_scenario.instructions
    assert not any(instructions.task_instructions in text or "scenario" in text for text in read)


@pytest.mark.parametrize("end", ENDS)
def test_the_packages_tokens_end_the_episode(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in the opening does not: there is nothing yet to be ended."""
    task = taskset("test", "retail")[0]
    with customer(lambda messages: f"Hello. {end}") as url:
        point_to(monkeypatch, url)
        env = Service()
        assert env.reset(task).messages[-1] == Message("user", "Hello.")
        observation = env.step(Message("assistant", "Hello?"))
        assert observation.done and observation.messages == (Message("user", f"Hello. {end}"),)
        assert observation.signals.state is not None
        with pytest.raises(RuntimeError, match="reset"):
            env.step(Message("assistant", "Hello?"))


@pytest.mark.parametrize("said", ["###STOP###", "", "<think>hm"])
def test_a_customer_who_says_nothing_is_the_machines_fault(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with customer(lambda messages: said) as url:
        point_to(monkeypatch, url)
        with pytest.raises(EndpointError, match="user"):
            Service().reset(taskset("test", "retail")[0])


def test_an_endpoint_that_fails_is_named_and_no_failure_of_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Service()
    with customer(lambda messages: "Hello.") as url:
        point_to(monkeypatch, url)
        env.reset(taskset("test", "retail")[0])
    with pytest.raises(EndpointError) as error:
        env.step(Message("assistant", "Hello?"))
    assert all(word in str(error.value) for word in (url, URL, MODEL, KEY, "'m'"))


def config(env: str, level: str) -> Config:
    return Config(envs=EnvsConfig(name=env), curriculum=CurriculumConfig([StageConfig("only", {level: 1.0})]))


def test_without_an_endpoint_nothing_starts_and_telecom_does(monkeypatch: pytest.MonkeyPatch) -> None:
    check_levels(config("tau2", "service_issue"))
    with pytest.raises(ConfigError, match=f"{URL}.*{MODEL}.*{KEY}"):
        check_levels(config("tau2_users", "retail"))
    with pytest.raises(ValueError, match=URL):
        Service().reset(taskset("test", "retail")[0])
    monkeypatch.setenv(URL, "http://127.0.0.1:9/v1")
    with pytest.raises(ValueError, match=MODEL):
        ENTRY.ready()
    monkeypatch.setenv(MODEL, "m")
    check_levels(config("tau2_users", "retail"))


class Patient(Content):
    """Never content."""

    def answer(self, told: str) -> str:
        return "And then?"


@pytest.mark.parametrize(
    ("call", "most"), [("get_user_details", MAX_ERRORS), ("list_all_product_types", MAX_MESSAGES), ("", MAX_MESSAGES)]
)
def test_the_packages_limits_end_an_episode_unsolved(call: str, most: int) -> None:
    task, env = taskset("test", "retail")[0], Service(Patient)
    env.reset(task)
    message = Message("assistant", "", (ToolCall(call, {}),)) if call else Message("assistant", "And then?")
    turns: list[Turn] = []
    while not turns or not turns[-1].observation.done:
        turns.append(Turn((), (), (), (), message, env.step(message)))
    assert len(turns) == most and turns[-1].observation.signals.state is None
    assert verdict(task, Trajectory("t", task.id, tuple(turns), Stop.DONE)) == "user turn 1: not finished"


ODD = [
    ("calculate", {"expression": "9**9**9**9"}),
    ("calculate", {"expression": "(" * 10_000}),
    ("calculate", {"expression": 3}),
    ("no_such_tool", {"self": 1}),
    ("get_user_details", {"tool_name": "x"}),
    ("cancel_pending_order", {"order_id": [1], "reason": {}}),
    ("modify_user_address", {"user_id": "x", "requestor": "user"}),
]


def test_odd_calls_are_errors_of_the_tool() -> None:
    env = Service(Content)
    env.reset(taskset("test", "retail")[0])
    for name, arguments in ODD:
        assert env.step(Message("assistant", "", (ToolCall(name, arguments),))).signals.outcomes[0].error, name


def test_an_episode_leaves_nothing_behind() -> None:
    task = sample("retail", NUM_TASKS)[-1]
    assert played(task, oracle(task)).turns == played(task, oracle(task)).turns


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello.", "Hello."),
        ("<think>a</think>Hello.", "Hello."),
        ("a</think> Hello.", "Hello."),
        ("<think>a</think><answer>Hello.</answer>", "Hello."),
        ("<think>a", ""),
    ],
)
def test_thoughts_are_not_said(text: str, said: str) -> None:
    assert words(text) == said
