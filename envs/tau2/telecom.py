"""A customer's ticket, the company's tools and the customer's telephone, all in the agent's hands.

The package's own tools answer and its own assertions judge. Its 40 test tasks are the test split; the others, which combine
the same troubles in other ways, are for training and validation.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

from loguru import logger
from tau2.data_model.message import ToolCall as PackageCall
from tau2.data_model.tasks import RewardType
from tau2.data_model.tasks import Task as PackageTask
from tau2.domains.telecom.data_model import TelecomDB
from tau2.domains.telecom.environment import TelecomEnvironment, get_environment, get_tasks, get_tasks_split
from tau2.domains.telecom.user_data_model import TelecomUserDB
from tau2.domains.telecom.utils import TELECOM_DB_PATH, TELECOM_USER_DB_PATH

from envs.conversation import Conversation, World
from envs.tau2.calls import Calls
from envs.types import CallOutcome, Json, Message, Task, ToolCall

logger.disable("tau2")  # it logs every call
LEVELS = ("service_issue", "mobile_data_issue", "mms_issue")
NUM_VALIDATION = 30  # of each level
MAX_MESSAGES = 100  # the package's own limit
SYSTEM = """You solve a telephone customer's trouble by yourself: with the company's tools, and with those of the customer's
telephone. Nobody answers you. Call tools until the ticket is solved; then say so in a sentence without any call.

{policy}"""


class Telecom(Conversation):
    def __init__(self) -> None:
        super().__init__(lambda task: Ticket(_tasks()[str(task.payload["id"])]), max_messages=MAX_MESSAGES)


class Ticket(World):
    """One customer's world. Calls are run by the package, which judges them at the end."""

    def __init__(self, task: PackageTask) -> None:
        self._task, self._world = task, _world(task)
        self._calls = Calls(self._world)

    def run(self, call: ToolCall) -> CallOutcome:
        return self._calls.run(call)

    def state(self, answer: str) -> Json:
        return cast(Json, verdicts(self._world, self._task, self._calls.made))


@cache
def taskset(split: str, level: str) -> Sequence[Task]:
    """The tasks of one kind of trouble."""
    if level not in LEVELS:
        raise ValueError(f"tau2 has no level {level!r}; there are: {', '.join(LEVELS)}")
    held = set(get_tasks_split()["test"])
    others = sorted(id for id in _tasks() if id.startswith(f"[{level}]") and id not in held)
    kept = set(random.Random(level).sample(others, NUM_VALIDATION))
    splits = {
        "train": [id for id in others if id not in kept],
        "validation": [id for id in others if id in kept],
        "test": sorted(id for id in held if id.startswith(f"[{level}]")),
    }
    if split not in splits:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(splits)}")
    return tuple(_task(_tasks()[id], level) for id in splits[split])


def oracle(task: Task) -> Sequence[Message]:
    """The reference actions as assistant messages, and a closing answer."""
    calls = cast(list[dict[str, Json]], task.truth[0]["calls"])
    acts = [ToolCall(str(call["name"]), cast(dict[str, Json], call["arguments"])) for call in calls]
    return [*(Message("assistant", "", (call,)) for call in acts), Message("assistant", "Done.")]


def verdicts(world: TelecomEnvironment, task: PackageTask, made: Sequence[PackageCall]) -> list[bool]:
    """One for each thing that the package's reward multiplies: its assertions, and reference actions where they count."""
    criteria = task.evaluation_criteria
    assert criteria is not None
    found = [world.run_env_assertion(one, raise_assertion_error=False) for one in criteria.env_assertions or []]
    if RewardType.ACTION in criteria.reward_basis:
        found += [any(action.compare_with_tool_call(call) for call in made) for action in criteria.actions or []]
    return found


@cache
def _tasks() -> Mapping[str, PackageTask]:
    return {task.id: task for task in get_tasks("full")}


@cache
def _databases() -> tuple[TelecomDB, TelecomUserDB]:
    company, customer = TelecomDB.load(str(TELECOM_DB_PATH)), TelecomUserDB.load(str(TELECOM_USER_DB_PATH))
    return cast(TelecomDB, company), cast(TelecomUserDB, customer)


def _world(task: PackageTask) -> TelecomEnvironment:
    company, customer = _databases()
    world = get_environment(company.model_copy(deep=True), customer.model_copy(deep=True), solo_mode=True)
    start = task.initial_state
    if start is not None:
        world.set_state(start.initialization_data, start.initialization_actions, start.message_history or [])
    return world


@cache
def _shared() -> tuple[Message, tuple[Mapping[str, Json], ...]]:
    """The system message and the tools, which all tasks have in common."""
    world = get_environment(*_databases(), solo_mode=True)
    tools = tuple(tool.openai_schema for tool in (*world.get_tools(), *world.get_user_tools()))
    return Message("system", SYSTEM.format(policy=world.get_policy())), tools


def _task(task: PackageTask, level: str) -> Task:
    system, tools = _shared()
    criteria = task.evaluation_criteria
    assert criteria is not None and task.ticket is not None
    actions = criteria.actions or []
    calls: list[Json] = [{"name": action.name, "arguments": action.arguments} for action in actions]
    count = len(criteria.env_assertions or []) + (len(actions) if RewardType.ACTION in criteria.reward_basis else 0)
    truth: dict[str, Json] = {"calls": calls, "results": [], "state": list[Json]([True] * count), "needs_call": True}
    messages = (system, Message("user", task.ticket))
    return Task(f"tau2/{task.id}", "tau2", level, messages, tools, {"id": task.id}, (truth,))
