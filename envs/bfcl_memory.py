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

from envs.bfcl.bfcl import error_of
from envs.bfcl.data import DATA, rows, tools
from envs.bfcl.tasks import MAX_MESSAGES
from envs.bfcl.world import World
from envs.environment import Entry
from envs.types import CallOutcome, Json, Message, Observation, Signals, Task, ToolCall

BACKENDS = {"kv": MemoryAPI_kv, "rec_sum": MemoryAPI_rec_sum}
LEVELS = tuple(BACKENDS)
KEPT = {"kv": ("core_memory", "archival_memory"), "rec_sum": ("memory",)}
SYSTEM = """You assist one user over many conversations, which you will not see again: what you need to know later, such as facts,
plans and preferences, put into your memory by its tools while you talk, and look there before you say that you do not know.
{visible} of your memory now:
{memory}"""


class Memory:
    """One conversation, or one question. A message without calls ends the user turn; a question is judged by it."""

    def __init__(self) -> None:
        self._world: World | None = None
        self._requests: list[str] = []
        self._num_messages = 0

    def reset(self, task: Task) -> Observation:
        self._task = task
        self._level = task.level.partition("/")[0]
        self._instance = _instance(self._level, task.payload["memory"])
        self._world = World({"MemoryAPI": self._instance})
        self._requests = cast(list[str], task.payload["requests"])[1:]
        self._num_messages = 0
        return Observation(task.messages)

    def step(self, message: Message) -> Observation:
        if self._world is None:
            raise RuntimeError("the episode is over or has not begun: call reset(task) first")
        self._num_messages += 1
        if not message.calls and not message.malformed:
            return self._end_user_turn(message.content)
        outcomes = () if message.malformed else tuple(_outcome(self._world, call) for call in message.calls)
        contents = [str(outcome.result) for outcome in outcomes] or [json.dumps({"error": "malformed"})]
        done = self._num_messages >= MAX_MESSAGES
        state = self._state("") if done else None
        return Observation(tuple(Message("tool", text) for text in contents), done, Signals(outcomes, message.malformed, state))

    def close(self) -> None:
        self._world = None

    def _end_user_turn(self, answer: str) -> Observation:
        self._num_messages = 0
        if not self._requests:
            return Observation((), True, Signals(state=self._state(answer)))
        request, *self._requests = self._requests
        return Observation((Message("user", request),), False, Signals(state=False))

    def _state(self, answer: str) -> Json:
        """A question's verdict; of a conversation, the memory at its end."""
        expected = cast(list[str], self._task.payload["answers"])
        if expected:
            return bool(agentic_checker(answer, expected)["valid"])
        return {name: vars(self._instance)[name] for name in KEPT[self._level]}


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


def _outcome(world: World, call: ToolCall) -> CallOutcome:
    result = world.run(call)
    return CallOutcome(call, result, error_of(result))


ENTRY = Entry(Memory, taskset, LEVELS, "", oracle, prelude=prelude, carry=carry, is_quick=True)
