"""Groups of oracle trajectories with rewards that differ: tokens of real batches, for benchmarks of the learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from actors.renderer import Renderer
from cluster.config import Config
from envs.environment import environment
from envs.types import Assignment, Group, Message, Observation, Span, Stop, Task, Trajectory, Turn


def groups(config: Config, model: str, tasks: Sequence[Task] = ()) -> list[Group]:
    """A group of eight siblings for each task; without any, for the first eight of two calls of the shop."""
    renderer = Renderer(model, config.actors.calls)
    found = []
    for number, task in enumerate(tasks or environment("shop").taskset("train", "2")[:8]):
        entry = environment(task.env)
        turns = []
        env, context = entry.make(), renderer.open(task.messages, task.tools)
        env.reset(task)
        for message in entry.oracle(task):
            action = renderer.act(message)
            observation = env.step(message)
            turns.append(_turn(context, action, message, observation=observation))
            context = renderer.extend(action, observation.messages)
        base = Trajectory("", task.id, tuple(turns), Stop.DONE)
        siblings = (replace(_varied(base, k), id=f"{number}-{k}", reward=float(k % 2)) for k in range(8))
        found.append(Group(Assignment(number, task, "bench", 0.0, "progress", 8), tuple(siblings)))
    return found


def _turn(context: Sequence[int], action: Sequence[int], message: Message, *, observation: Observation) -> Turn:
    return Turn(tuple(context), tuple(action), (-0.5,) * len(action), (Span(0, 0, len(action)),), message, observation)


def _varied(trajectory: Trajectory, number: int) -> Trajectory:
    """Siblings differ from their third sampled token on, as sampled ones would."""
    turns = []
    for turn in trajectory.turns:
        varied = tuple(token if at < 3 else (token + number) % 40_000 for at, token in enumerate(turn.action))
        turns.append(replace(turn, action=varied))
    return replace(trajectory, turns=tuple(turns))
