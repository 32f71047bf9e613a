"""A group: which siblings are waited for, and what becomes of the others."""

import asyncio
from collections.abc import Sequence

import pytest

from actors.config import ActorsConfig
from actors.engine import Completion, Sampling
from actors.env_actor import EnvActor, GroupFault
from actors.renderer import Renderer
from actors.scripted_engine import ScriptedEngine
from actors.vllm_engine import VLLMConfig
from envs.config import EnvsConfig, rules
from envs.environment import environment
from envs.types import Assignment
from rewards.config import RewardsConfig, rubrics

SHOP = environment("shop")
TASK = SHOP.taskset("train", "1")[0]


class Oracle(ScriptedEngine):
    """Plays the reference; siblings named in `slow` never get beyond their first turn, and `fault` fails."""

    def __init__(self, folder: str, *, slow: Sequence[str] = (), fault: str = "") -> None:
        renderer, moves = Renderer(folder), SHOP.oracle(TASK)
        self.turns: dict[str, int] = {}
        super().__init__(lambda tokens, session: renderer.act(moves[self.turns[session]]))
        self.slow, self.fault = slow, fault
        self.forgotten: list[str] = []

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        if session == self.fault:
            raise ConnectionError("the machine is gone")
        if session in self.slow and session in self.turns:
            await asyncio.Event().wait()
        self.turns[session] = self.turns.get(session, -1) + 1
        return await super().generate(tokens, sampling, session=session)

    async def forget(self, session: str) -> None:
        self.forgotten.append(session)


def actor(folder: str, engine: Oracle, **settings: int) -> EnvActor:
    config = ActorsConfig(max_action_tokens=400, fault_retries=0, engine=VLLMConfig(max_model_len=20_000), **settings)
    return EnvActor(config, engine, model=folder, rules=rules(EnvsConfig()), rubrics=rubrics(RewardsConfig()))


def assignment(size: int) -> Assignment:
    return Assignment(7, TASK, "easy", 0.0, "progress", size)


async def test_a_group_does_not_wait_for_its_slowest_siblings(byte_folder: str) -> None:
    engine = Oracle(byte_folder, slow=["7-0", "7-2"])
    group = await asyncio.wait_for(actor(byte_folder, engine, redundancy=2).rollout(assignment(3)), 10)
    assert [one.id for one in group.trajectories] == ["7-1", "7-3", "7-4"]
    first = len(Renderer(byte_folder).act(SHOP.oracle(TASK)[0]))
    assert group.cancelled == (first, first)  # each had said one whole turn
    assert set(engine.forgotten) == {f"7-{number}" for number in range(5)}


async def test_an_evaluation_plays_no_more_than_it_is_asked_for(byte_folder: str) -> None:
    engine = Oracle(byte_folder)
    group = await actor(byte_folder, engine, redundancy=2).rollout(assignment(2), greedy=True)
    assert [one.id for one in group.trajectories] == ["7-0", "7-1"] and not group.cancelled


async def test_a_group_whose_sibling_faults_leaves_nothing_running(byte_folder: str) -> None:
    engine = Oracle(byte_folder, slow=["7-0"], fault="7-1")
    with pytest.raises(GroupFault, match="assignment 7.*the machine is gone"):
        await asyncio.wait_for(actor(byte_folder, engine).rollout(assignment(2)), 10)
    assert len(asyncio.all_tasks()) == 1 and set(engine.forgotten) == {"7-0", "7-1"}
