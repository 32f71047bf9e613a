"""BFCL's memory tasks: conversations are kept by the policy's own calls, questions are judged as the package judges them."""

import asyncio
import json

import pytest
from bfcl_eval.eval_checker.agentic_eval.agentic_checker import agentic_checker

from actors.config import ActorsConfig
from actors.env_actor import EnvActor
from actors.renderer import Renderer
from actors.scripted_engine import ScriptedEngine
from actors.vllm_engine import VLLMConfig
from cluster.evaluate import evaluate
from envs.augmentation import Rules
from envs.bfcl_memory import LEVELS, Memory, carry, oracle, prelude, taskset
from envs.types import Message, Stop, Task, ToolCall, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics
from rewards.user_turns import verdict


def answered(task: Task, *messages: Message) -> Trajectory:
    env = Memory()
    env.reset(task)
    return Trajectory("t", task.id, tuple(Turn((), (), (), (), m, env.step(m)) for m in messages), Stop.DONE)


@pytest.mark.parametrize("level", LEVELS)
def test_each_backend_has_its_questions_and_their_answers_are_right(level: str):
    tasks = taskset("test", level)
    assert len(tasks) == 155 and taskset("train", level) == ()
    for task in tasks:
        assert verdict(task, answered(task, *oracle(task))) == ""
        for text in ("I do not know.", "", "The answer is 42."):
            right = agentic_checker(text, task.payload["answers"])["valid"]
            assert (verdict(task, answered(task, Message("assistant", text))) == "") == right


def test_what_is_kept_in_a_conversation_is_there_in_the_next_one():
    (first, second, *_), question = prelude(taskset("test", "kv")[0]), taskset("test", "kv")[0]
    call = Message("assistant", "", (ToolCall("core_memory_add", {"key": "name", "value": "Michael"}),))
    turns = len(first.payload["requests"])
    state = answered(first, call, *[Message("assistant", "I see.")] * turns).turns[-1].observation.signals.state
    assert state == {"core_memory": {"name": "Michael"}, "archival_memory": {}}
    for task in (carry(second, state), carry(question, state)):
        assert "Michael" in task.messages[0].content and "Michael" not in second.messages[0].content
        kept = answered(task, Message("assistant", "", (ToolCall("core_memory_list_keys", {}),)))
        assert "name" in str(kept.turns[0].observation.signals.outcomes[0].result)


def test_an_evaluation_plays_each_scenario_once_and_asks_with_what_was_kept(byte_folder: str):
    tasks = [task for task in taskset("test", "rec_sum") if task.payload["scenario"] == "notetaker"][:3]
    renderer = Renderer(byte_folder, "python")
    seen: list[str] = []

    def script(tokens, session):
        is_first = session not in seen
        seen.append(session)
        kept = Message("assistant", "", (ToolCall("memory_append", {"text": f"{len(set(seen))}."}),))
        return renderer.act(kept if is_first else Message("assistant", "Fine."))

    config = ActorsConfig(calls="python", max_turns=100, max_action_tokens=200, engine=VLLMConfig(max_model_len=2**20))
    actor = EnvActor(config, ScriptedEngine(script), model=byte_folder, rules=Rules("", 0), rubrics=rubrics(RewardsConfig()))
    groups = asyncio.run(evaluate([actor], tasks, stage="test"))
    assert {json.dumps(group.assignment.task.payload["memory"]) for group in groups} == {'{"memory": "1.2.3.4.5."}'}
    assert [group.assignment.task.id for group in groups] == [task.id for task in tasks]
