"""`make bench-env`: the memory of one environment actor over thousands of episodes.

usage: python -m deploy.bench_env [ENVIRONMENT] [EPISODES]     bfcl and 5,000 without; writes runs/bench/env-<name>.json

Real: the actor in a process of its own, with its renderer, augmentation and rewards. Its engine plays the reference, of
which each sibling leaves out more messages than the one before, so that errors and hints occur.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice

import psutil

from actors.config import ActorsConfig
from actors.env_actor import EnvActor
from actors.renderer import Renderer
from actors.scripted_engine import ScriptedEngine
from actors.vllm_engine import VLLMConfig
from cluster.config import ClusterConfig, Config
from cluster.preflight import check
from cluster.remote import RaySpawn
from cluster.session import session
from deploy.figure import Figure
from envs.config import EnvsConfig, rules
from envs.environment import environment
from envs.types import Assignment, Message
from rewards.config import RewardsConfig, rubrics

GROUP_SIZE, AT_ONCE, BEGUN = 8, 8, 0.2  # groups at once; the share of the episodes after which growth counts
LEFT_OUT = 0.1  # more of the reference's messages with each sibling


class Player:
    """An environment actor with an engine that plays each assignment's reference."""

    def __init__(self, model: str, name: str) -> None:
        self._renderer, self._name = Renderer(model, "python"), name
        self._left: dict[str, list[tuple[int, ...]]] = {}
        config = ActorsConfig(calls="python", max_turns=100, max_action_tokens=4096, engine=VLLMConfig(max_model_len=2**20))
        engine = ScriptedEngine(self._next)
        self._actor = EnvActor(config, engine, model=model, rules=rules(EnvsConfig(name)), rubrics=rubrics(RewardsConfig()))

    async def play(self, assignment: Assignment) -> float:
        """The group's episodes, and the process's memory after them, in MiB."""
        messages = environment(self._name).oracle(assignment.task)
        for number in range(assignment.group_size):
            self._left[f"{assignment.id}-{number}"] = list(map(self._renderer.act, self._some(messages, number)))
        await self._actor.rollout(assignment)
        for number in range(assignment.group_size):
            del self._left[f"{assignment.id}-{number}"]
        return psutil.Process().memory_info().rss / 2**20

    def _some(self, messages: Sequence[Message], number: int) -> list[Message]:
        rng = random.Random(number)
        return [message for message in messages if not message.calls or rng.random() > LEFT_OUT * number]

    def _next(self, tokens: Sequence[int], session: str) -> Sequence[int]:
        left = self._left[session]
        return left.pop(0) if left else self._renderer.act(Message("assistant", "Done."))


async def play(name: str, num_episodes: int, model: str) -> list[float]:
    """Memory after each group, in MiB."""
    entry = environment(name)
    tasks = [task for level in entry.levels for task in entry.taskset("train", level)]
    num_groups = -(-num_episodes // GROUP_SIZE)
    player = RaySpawn("bench-env")(partial(Player, model, name), "env-0")
    gate, found = asyncio.Semaphore(AT_ONCE), list[float]()

    async def one(assignment: Assignment) -> None:
        async with gate:
            found.append(await player.play(assignment))

    played = enumerate(islice(cycle(tasks), num_groups))
    await asyncio.gather(*(one(Assignment(number, task, "", 1.0, "progress", GROUP_SIZE)) for number, task in played))
    return found


def main(name: str = "bfcl", episodes: str = "5000") -> None:
    config = Config(cluster=ClusterConfig())
    model = str(check(config))
    begun = time.perf_counter()
    with session(config.cluster):
        found = asyncio.run(play(name, int(episodes), model))
    early = found[int(BEGUN * len(found))]
    rate = int(episodes) / (time.perf_counter() - begun)
    print(
        f"{episodes} episodes of {name}, {rate:.0f} a second: {early:.0f} MiB after {BEGUN:.0%} of them, {found[-1]:.0f} at last"
    )
    Figure(f"env-{name}", early, found[-1], "MiB, a fifth in and at the end", 1 / 1.05, f"make bench-env ARGS={name}").tell()


if __name__ == "__main__":
    main(*sys.argv[1:])
