"""BFCL V4's memory tasks: what a user tells in some conversations is asked for later, in a context of its own.

For evaluation: 155 questions for each of two backends, a store of keys and values, and a text that is summed up again and
again. Before the questions of a scenario its conversations are played, in order; what the policy put into its memory is carried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import cast

from bfcl_eval.eval_checker.agentic_eval.agentic_checker import agentic_checker
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.memory_kv import MemoryAPI_kv
from bfcl_eval.eval_checker.multi_turn_eval.func_source_code.memory_rec_sum import MemoryAPI_rec_sum

from envs.bfcl.bfcl import Called
from envs.bfcl.data import DATA, rows, tools
from envs.bfcl.tasks import MAX_MESSAGES
from envs.bfcl.world import World
from envs.conversation import Conversation
from envs.environment import Entry
from envs.types import Json, Message, Task
from envs.user import words

BACKENDS = {"kv": MemoryAPI_kv, "rec_sum": MemoryAPI_rec_sum}
LEVELS = tuple(BACKENDS)
KEPT = {"kv": ("core_memory", "archival_memory"), "rec_sum": ("memory",)}
SYSTEM = """You assist one user over many conversations, which you will not see again: what you need to know later, such as facts,
plans and preferences, put into your memory by its tools while you talk, and look there before you say that you do not know.
{visible} of your memory now:
{memory}"""


class Memory(Conversation):
    """One conversation, or one question. A message without calls ends the user turn; a question is judged by it."""

    def __init__(self) -> None:
        super().__init__(Store, max_messages=MAX_MESSAGES)


class Store(Called):
    """The policy's memory. Its state is a question's verdict; of a conversation, what is in the memory then."""

    def __init__(self, task: Task) -> None:
        self._level = task.level.partition("/")[0]
        self._expected = cast(list[str], task.payload["answers"])
        self._instance = _instance(self._level, task.payload["memory"])
        super().__init__(World({"MemoryAPI": self._instance}))

    def state(self, answer: str) -> Json:
        if self._expected:
            return bool(agentic_checker(words(answer), self._expected)["valid"])
        return {name: vars(self._instance)[name] for name in KEPT[self._level]}

    def cut(self) -> Json:
        return self.state("")


def taskset(split: str, level: str) -> Sequence[Task]:
    """The questions to one backend, which has no training tasks."""
    return _questions(level) if split == "test" else ()


def prelude(task: Task) -> Sequence[Task]:
    """The conversations to be played before a question, in their order: the same for all questions of a scenario."""
    return _conversations(task.level, str(task.payload["scenario"]))


def carry(task: Task, memory: Json) -> Task:
    """The task with what the policy has in its memory by then."""
    level = task.level.partition("/")[0]
    told = _instance(level, memory)._dump_core_memory_to_context()
    visible = "This is all" if level == "rec_sum" else "This is the core, which alone you see without looking,"
    opening = (Message("system", SYSTEM.format(visible=visible, memory=told)), *task.messages[-1:])
    return replace(task, messages=opening, payload={**task.payload, "memory": memory})


def oracle(task: Task) -> Sequence[Message]:
    return [Message("assistant", f"It is {cast(list[str], task.payload['answers'])[0]}.")]


@cache
def _questions(level: str) -> Sequence[Task]:
    answers = {str(row["id"]): row for _, row in rows(DATA / "possible_answer" / "BFCL_v4_memory.json")}
    found = [row for _, row in rows(DATA / "BFCL_v4_memory.json")]
    return tuple(_task(row, level, cast(list[str], answers[str(row["id"])]["ground_truth"])) for row in found)


@cache
def _conversations(level: str, scenario: str) -> Sequence[Task]:
    found = [row for _, row in rows(DATA / "memory_prereq_conversation" / f"memory_{scenario}.json")]
    return tuple(_task(row, f"{level}/before", []) for row in found)


def _task(row: Mapping[str, Json], level: str, answers: list[str]) -> Task:
    backend = level.partition("/")[0]
    turns = cast(list[list[dict[str, str]]], row["question"])
    requests = ["\n".join(message["content"] for message in turn) for turn in turns]
    payload: dict[str, Json] = {
        "scenario": row["scenario"], "requests": list[Json](requests), "answers": list[Json](answers), "memory": None,
    }  # fmt: skip
    truth: tuple[dict[str, Json], ...] = ({"calls": [], "results": [], "state": True},) if answers else ()
    opening = (Message("user", requests[0]),)
    bare = Task(f"bfcl_memory/{level}/{row['id']}", "bfcl_memory", level, opening, tuple(tools(backend)), payload, truth)
    return carry(bare, None)


def _instance(level: str, memory: Json) -> MemoryAPI_kv | MemoryAPI_rec_sum:
    """The package's own store, filled without the files that it would read."""
    instance = BACKENDS[level]()
    if isinstance(memory, dict):
        vars(instance).update(json.loads(json.dumps(memory)))
    return instance


ENTRY = Entry(Memory, taskset, LEVELS, "", oracle, prelude=prelude, carry=carry, is_quick=True)
