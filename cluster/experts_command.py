"""`tiltyard experts`: trajectories to learn from, out of references, worse ones, a model's own, or recorded messages."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

from actors.calls import CALL_FORMATS
from cluster.experts import Act, following, play, replays, write
from envs.agent import Agent, heard
from envs.author import AuthorError
from envs.degrade import degrade
from envs.environment import Entry, environment
from envs.types import Json, Message, Task, Trajectory

SHAPE = '{"task_id": "shop/train/1/0", "messages": [{"role": "assistant", "content": "...", "tool_calls": [...]}, ...]}'
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """One trajectory to be played: `source` is where its messages are from."""

    task: Task
    source: str
    act: Act


def main(arguments: argparse.Namespace) -> int:
    """Exit status 0 where the file was written, 1 where an endpoint failed, 2 where nothing could be begun."""
    try:
        entry = environment(arguments.env)
        entry.ready()
        plans = list(_plans(arguments, entry))
        if not plans:
            raise ValueError(f"{arguments.env} has no {arguments.split} task of these levels; it has {', '.join(entry.levels)}")
    except (ValueError, OSError) as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    try:
        with ThreadPoolExecutor(arguments.parallel) as pool:
            played = list(pool.map(partial(_play, most=arguments.max_turns), plans, range(len(plans))))
    except AuthorError as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 1
    kept = [(plan, one) for plan, one, is_same in played if is_same and one.turns]
    if kept:
        write(Path(arguments.out), [(plan.task, one) for plan, one in kept], split=arguments.split)
    _tell(kept, [one for plan, one, is_same in played if not (is_same and one.turns)], arguments.out)
    return 0 if kept else 1


def _play(plan: Plan, number: int, *, most: int) -> tuple[Plan, Trajectory, bool]:
    """The episode, and whether it replays."""
    trajectory = play(plan.task, plan.act, id=f"{plan.source}/{plan.task.id}/{number}", most=most)
    return plan, trajectory, replays(plan.task, trajectory)


def _plans(arguments: argparse.Namespace, entry: Entry) -> Iterator[Plan]:
    levels = arguments.levels or entry.levels
    if arguments.calls and arguments.calls not in CALL_FORMATS:
        raise ValueError(f"--calls is {arguments.calls!r}; there are: {', '.join(CALL_FORMATS)}")
    if unknown := [level for level in levels if level not in entry.levels]:
        raise ValueError(f"{arguments.env} has no level {unknown[0]!r}; there are: {', '.join(entry.levels)}")
    pools = {level: list(entry.taskset(arguments.split, level))[: arguments.most or None] for level in levels}
    if arguments.imported:
        yield from _imported(Path(arguments.imported), pools, arguments.calls)
    elif arguments.endpoint:
        if not arguments.model:
            raise ValueError("--endpoint needs --model, the one to ask there")
        agent = Agent(arguments.endpoint, arguments.model, os.environ.get("OPENAI_API_KEY", ""))
        for task in (task for pool in pools.values() for task in pool):
            yield Plan(task, arguments.model, agent.act)
    else:
        yield from _references(pools, entry, share=arguments.degraded, seed=arguments.seed)


def _references(pools: Mapping[str, list[Task]], entry: Entry, *, share: float, seed: int) -> Iterator[Plan]:
    """Each task's reference; of a `share` of them one made worse instead."""
    for pool in pools.values():
        for task in pool:
            rng = Random(f"{seed}/{task.id}")
            own = list(entry.oracle(task))
            if rng.random() >= share:
                yield Plan(task, "reference", following(own))
                continue
            other = rng.choice([one for one in pool if one.id != task.id] or [task])
            name, worse = degrade(own, list(entry.oracle(other)), rng)
            yield Plan(task, name, following(worse))


def _imported(path: Path, pools: Mapping[str, Sequence[Task]], calls: str) -> Iterator[Plan]:
    known = {task.id: task for pool in pools.values() for task in pool}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                yield _recorded(line, known, calls)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def _recorded(line: str, known: Mapping[str, Task], calls: str) -> Plan:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); each line must be like {SHAPE}") from error
    match told:
        case {"task_id": str(id), "messages": [*messages]} if all(isinstance(one, dict) for one in messages):
            if id not in known:
                raise ValueError(f"no task is called {id!r}; there are {len(known)}, such as {next(iter(known), 'none')!r}")
            return Plan(known[id], "recorded", following(_acted(cast(list[dict[str, Json]], messages), known[id], calls)))
        case _:
            raise ValueError(f"{line[:80]!r} has not the form {SHAPE}")


def _acted(messages: Sequence[Mapping[str, Json]], task: Task, calls: str) -> list[Message]:
    """The assistant's own, after those that open the task's conversation; calls written into the text are read as `calls`."""
    said = [one for one in messages if one.get("role") == "assistant"]
    num_opening = sum(one.role == "assistant" for one in task.messages)
    opening = [one.content for one in task.messages if one.role == "assistant"]
    if [str(one.get("content") or "") for one in said[:num_opening]] == opening:
        said = said[num_opening:]
    found = [heard(one) for one in said]
    if not calls:
        return found
    return [one if one.calls or one.malformed else CALL_FORMATS[calls].parse(one.content) for one in found]


def _tell(kept: Sequence[tuple[Plan, Trajectory]], lost: Sequence[Trajectory], out: str) -> None:
    print(f"{'source':16}{'trajectories':>13}{'solved':>8}{'actions':>9}")
    counts = Counter(plan.source for plan, _ in kept)
    for source, count in sorted(counts.items()):
        own = [one for plan, one in kept if plan.source == source]
        print(f"{source:16}{count:13}{sum(one.success for one in own):8}{sum(len(one.turns) for one in own) / count:9.1f}")
    for one in lost[:MAX_SHOWN]:
        print(f"left out: {one.id} {'does not replay' if one.turns else 'has no message'}")
    if len(lost) > MAX_SHOWN:
        print(f"left out: {len(lost) - MAX_SHOWN} more")
    solved = sum(one.success for _, one in kept)
    print(f"{len(kept)} trajectories, {solved} of them solve their task" + (f": {out}" if kept else "; no file was written"))
