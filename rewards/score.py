"""Scores recorded calls: plays them through an environment and weighs what came of them, without any model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from envs.call_text import NotACall
from envs.environment import Environment, environment
from envs.json_lines import lines
from envs.types import CallOutcome, Json, Message, Stop, Task, ToolCall, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics
from rewards.user_turns import user_turns, verdict

SHAPE = '{"task_id": "shop/test/1/0", "turns": [[{"name": "price", "arguments": {"id": "i52"}}]]}'


@dataclass(frozen=True, slots=True)
class Recording:
    """The calls made in each user turn of one episode."""

    task: Task
    turns: tuple[tuple[ToolCall, ...], ...]


def score_file(env_name: str, path: str) -> Iterator[dict[str, Json]]:
    """Score a file of JSON lines. ValueError names the file, the line and the remedy."""
    try:
        found = lines(Path(path))
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); give a text file with one JSON object per line") from error
    if not found:
        raise ValueError(f"{path}: it has no line; each line must be like {SHAPE}")
    for number, line in found:
        try:
            yield score_line(env_name, line, file=Path(path))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def score_line(env_name: str, line: str, *, file: Path = Path()) -> dict[str, Json]:
    """Score one recorded episode under the default "progress" rubric; the form of `line` is SHAPE's.

    A call may also be a text, such as "price(id='i52')". A line in the environment's own form is scored by the environment;
    `file` is where it comes from.
    """
    data = _parsed(line)
    own = environment(env_name).score
    found = own(data, file) if own is not None and isinstance(data, dict) else None
    return _replayed(env_name, _read(env_name, line, data)) if found is None else found


def _replayed(env_name: str, recording: Recording) -> dict[str, Json]:
    task = recording.task
    rubric = rubrics(RewardsConfig())["progress"]
    trajectory = rubric(task, _play(environment(env_name).make(), task, recording))
    turns = [turn.outcomes for turn in user_turns(task, trajectory)]
    return {
        "task_id": task.id,
        "success": trajectory.success,
        "verdict": verdict(task, trajectory),
        "reward": trajectory.reward,
        "parts": dict(trajectory.parts),
        "turns": [[_outcome(outcome) for outcome in outcomes] for outcomes in turns],
        "errors": [
            f"user turn {number}: {outcome.call.name}: {outcome.error}"
            for number, outcomes in enumerate(turns, start=1)
            for outcome in outcomes
            if outcome.error
        ],
    }


def _parsed(line: str) -> Json:
    try:
        return cast(Json, json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); each line must be like {SHAPE}") from error


def _read(env_name: str, line: str, data: Json) -> Recording:
    match data:
        case {"task_id": str(task_id), "turns": [*turns]} if all(isinstance(turn, list) for turn in turns):
            task = _task(env_name, task_id)
            return Recording(task, tuple(tuple(_call(task, value) for value in cast(list[Json], turn)) for turn in turns))
        case _:
            raise ValueError(f"{line[:80]!r} has not the form {SHAPE}")


def _call(task: Task, value: Json) -> ToolCall:
    match value:
        case {"name": str(name), "arguments": dict(arguments)}:
            return ToolCall(name, arguments)
        case str(text):
            try:
                return environment(task.env).recorded(task, text)
            except NotACall as error:
                raise ValueError(f"{text[:80]!r} is no call: {error}") from error
        case _:
            raise ValueError(f"{str(value)[:80]!r} is no call; write one like in {SHAPE}")


def _task(env_name: str, task_id: str) -> Task:
    known = _tasks(env_name)
    if task_id not in known:
        raise ValueError(f"no task is called {task_id!r}; {env_name} has {len(known)}, such as {next(iter(known))!r}")
    return known[task_id]


@cache
def _tasks(env_name: str) -> dict[str, Task]:
    entry = environment(env_name)
    pairs = [(split, level) for split in ("test", "validation", "train") for level in entry.levels]
    return {task.id: task for split, level in pairs for task in entry.taskset(split, level)}


def _play(env: Environment, task: Task, recording: Recording) -> Trajectory:
    """The calls as messages, and an answer after each user turn; what comes after the episode's end is left out."""
    env.reset(task)
    turns: list[Turn] = []
    done = False
    for calls in recording.turns:
        for message in (*environment(task.env).messages(calls), Message("assistant", "Done")):
            if not done:
                observation = env.step(message)
                turns.append(Turn((), (), (), (), message, observation))
                done = observation.done
    env.close()
    return Trajectory(f"{task.id}/recorded", task.id, tuple(turns), Stop.DONE if done else Stop.MAX_TURNS)


def _outcome(outcome: CallOutcome) -> Json:
    call: dict[str, Json] = {"name": outcome.call.name, "arguments": dict(outcome.call.arguments)}
    return {**call, "error": outcome.error} if outcome.error else {**call, "result": outcome.result}
