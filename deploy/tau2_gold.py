"""`python -m deploy.tau2_gold [LEVEL ...]`: every reference of τ²-bench, played and judged by us and by the package itself.

Without levels all five. Exit status 1 where a verdict differs.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from tau2.data_model.message import AssistantMessage, ToolMessage
from tau2.data_model.message import ToolCall as PackageCall
from tau2.data_model.tasks import RewardType
from tau2.data_model.tasks import Task as PackageTask
from tau2.domains.telecom import environment as telecom
from tau2.user.base import STOP

from envs import tau2
from envs.environment import Entry, Environment
from envs.tau2 import users
from envs.tau2.domains import DOMAINS, package_tasks, world
from envs.tau2.service import Service
from envs.types import Message, Stop, Task, Trajectory, Turn
from envs.user import words
from rewards.user_turns import verdict

SPLITS = ("train", "validation", "test")
PART = "tau2.evaluator.evaluator_"


class Content:
    """A user who is content with the first words that it hears after its request."""

    def __init__(self, scenario: str) -> None:
        self._answers = ["I need your help.", f"Thank you. {STOP}"]

    def answer(self, told: str) -> str:
        return self._answers.pop(0)


def played(task: Task, messages: Sequence[Message]) -> Trajectory:
    """The episode up to its end."""
    env: Environment = Service(Content) if task.level in DOMAINS else tau2.Telecom()
    env.reset(task)
    turns: list[Turn] = []
    for message in messages:
        turns.append(Turn((), (), (), (), message, env.step(message)))
    env.close()
    return Trajectory("gold", task.id, tuple(turns), Stop.DONE)


def official(task: Task, trajectory: Trajectory) -> float:
    """The package's own reward of the same calls and words."""
    package, messages, is_solo = _package_task(task), _messages(trajectory), task.level not in DOMAINS
    by_state, by_actions, by_words = _evaluators()
    reward = by_state.calculate_reward(_constructor(task.level), package, messages, solo_mode=is_solo).reward
    basis = package.evaluation_criteria.reward_basis if package.evaluation_criteria else []
    for kind, judge in {RewardType.ACTION: by_actions, RewardType.COMMUNICATE: by_words}.items():
        reward *= judge.calculate_reward(package, messages).reward if kind in basis else 1.0
    return reward


def _messages(trajectory: Trajectory) -> list[AssistantMessage | ToolMessage]:
    found: list[AssistantMessage | ToolMessage] = []
    for turn in trajectory.turns:
        outcomes = turn.observation.signals.outcomes
        if not outcomes and not turn.message.malformed:
            found.append(AssistantMessage(role="assistant", content=words(turn.message.content)))
        for outcome in outcomes:
            call = PackageCall(
                id=str(len(found)), name=outcome.call.name, arguments=dict(outcome.call.arguments), requestor="assistant"
            )
            found.append(AssistantMessage(role="assistant", tool_calls=[call]))
            found.append(ToolMessage(id=call.id, role="tool", content=str(outcome.result), requestor="assistant"))
    return found


def _constructor(level: str) -> Callable[..., object]:
    def enter(solo_mode: bool = False) -> object:
        return world(level)  # the package's own would parse the database anew

    return enter if level in DOMAINS else telecom.get_environment


def _package_task(task: Task) -> PackageTask:
    id = str(task.payload["id"])
    return package_tasks(task.level)[id] if task.level in DOMAINS else _telecom()[id]


@cache
def _telecom() -> Mapping[str, PackageTask]:
    return {task.id: task for task in telecom.get_tasks("full")}


@cache
def _evaluators() -> tuple[Any, Any, Any]:
    """The package's own, which import pandas for tables that nobody asks for here."""
    stands_in = importlib.util.find_spec("pandas") is None
    if stands_in:
        sys.modules["pandas"] = ModuleType("pandas")
        vars(sys.modules["pandas"])["DataFrame"] = object
    try:
        modules = [importlib.import_module(f"{PART}{name}") for name in ("env", "action", "communicate")]
    finally:
        if stands_in:
            del sys.modules["pandas"]
    return modules[0].EnvironmentEvaluator, modules[1].ActionEvaluator, modules[2].CommunicateEvaluator


def compare(entry: Entry, level: str) -> int:
    """How many references of a level are judged unlike the package judges them."""
    begun, ours, theirs, differing = time.monotonic(), 0, 0, 0
    tasks = [task for split in SPLITS for task in entry.taskset(split, level)]
    for task in tasks:
        trajectory = played(task, entry.oracle(task))
        is_solved, is_accepted = verdict(task, trajectory) == "", official(task, trajectory) == 1.0
        ours, theirs, differing = ours + is_solved, theirs + is_accepted, differing + (is_solved != is_accepted)
    seconds = time.monotonic() - begun
    print(
        f"{level:18} accepted by the package {theirs}/{len(tasks)}, by us {ours}/{len(tasks)}, "
        f"{differing} verdicts differ, {seconds:.0f} s",
        flush=True,
    )
    return differing


def main(arguments: Sequence[str]) -> int:
    entries = {level: entry for entry in (tau2.ENTRY, users.ENTRY) for level in entry.levels}
    unknown = [level for level in arguments if level not in entries]
    if unknown:
        print(f"no level is called {unknown[0]!r}; there are: {', '.join(entries)}", file=sys.stderr)
        return 2
    return int(sum(compare(entries[level], level) for level in arguments or entries) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
