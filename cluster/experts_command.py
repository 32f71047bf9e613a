"""`tiltyard experts`: trajectories to learn from, out of references, worse ones, a model's own, or recorded messages."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import cast

from actors.calls import CALL_FORMATS
from cluster.experts import Act, following, play, read, replays, write
from envs.agent import act, heard
from envs.degrade import KINDS
from envs.endpoint import Endpoint, EndpointError, NoReply
from envs.environment import Entry, environment
from envs.json_lines import lines
from envs.types import Json, Message, Stop, Task, Trajectory

SHAPE = '{"task_id": "shop/train/1/0", "messages": [{"role": "assistant", "content": "...", "tool_calls": [...]}, ...]}'
MAX_SHOWN = 5
MODEL_TURNS = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """One trajectory to be played: `source` is where its messages are from, which may take their time to be made."""

    task: Task
    source: str
    make: Callable[[], Act]
    mark: str = "0"  # among those of the same task and source

    @property
    def id(self) -> str:
        return f"{self.source}/{self.task.id}/{self.mark}"


@dataclass(frozen=True, slots=True)
class Played:
    """`problem` says why there is no trajectory to keep; "" where there is."""

    plan: Plan
    trajectory: Trajectory
    problem: str = ""


def main(arguments: argparse.Namespace) -> int:
    """Exit status 0 where all was played, 1 where it ended early or nothing came of it, 2 where nothing could be begun."""
    out = Path(arguments.out)
    try:
        _check(arguments, out)
        entry = environment(arguments.env)
        entry.ready()
        known = {one.id for one in read(out)} if arguments.resume and out.exists() else set[str]()
        plans = list(_plans(arguments, entry))
        if not plans and arguments.imported:
            raise ValueError(f"{arguments.imported} has no line; each must be like {SHAPE}")
        if not plans:
            raise ValueError(f"{arguments.env} has no {arguments.split} task of these levels; it has {', '.join(entry.levels)}")
    except (ValueError, OSError) as error:
        print(f"tiltyard: {error}", file=sys.stderr)
        return 2
    left, failed = [plan for plan in plans if plan.id not in known], list[EndpointError]()
    played = _play_all(left, arguments, failed)
    kept = [one for one in played if not one.problem]
    if kept:
        write(out, [(one.plan.task, one.trajectory) for one in kept], split=arguments.split, after=out if known else None)
    _tell(kept, [one for one in played if one.problem], out, known=len(known))
    if failed:
        print(f"tiltyard: {failed[0]}\nWhat was played is kept; the same command with --resume plays the rest", file=sys.stderr)
    return int(bool(failed) or not (kept or known))


def _check(arguments: argparse.Namespace, out: Path) -> None:
    for name, value, least in (
        ("parallel", arguments.parallel, 1),
        ("most", arguments.most, 0),
        ("max-turns", arguments.max_turns, 0),
    ):
        if value < least:
            raise ValueError(f"--{name} is {value}; it must be at least {least}")
    if not 0 <= arguments.degraded <= 1:
        raise ValueError(f"--degraded is {arguments.degraded}; it is a share, from 0 to 1")
    if out.is_dir():
        raise ValueError(f"--out is {out}, which is a folder; name a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out is {out}, and nothing can be written in {out.parent}; name another file")


def _play_all(plans: Sequence[Plan], arguments: argparse.Namespace, failed: list[EndpointError]) -> list[Played]:
    """In the order of the plans; what has been played by the time of a Ctrl-C is not lost."""
    done: dict[int, Played] = {}
    with ThreadPoolExecutor(arguments.parallel) as pool:
        most = arguments.max_turns or (MODEL_TURNS if arguments.endpoint else sys.maxsize)
        waiting = {pool.submit(_play, plan, most=most, failed=failed): n for n, plan in enumerate(plans)}
        try:
            for future in as_completed(waiting):
                done[waiting[future]] = future.result()
        except KeyboardInterrupt:
            failed.append(EndpointError("stopped"))
            pool.shutdown(cancel_futures=True)
    return [done[n] for n in sorted(done)]


def _play(plan: Plan, *, most: int, failed: list[EndpointError]) -> Played:
    """The episode, checked to replay. Once an endpoint has `failed` nothing more is played."""
    nothing = Trajectory(plan.id, plan.task.id, (), Stop.FAULT)
    if failed:
        return Played(plan, nothing, "not played")
    try:
        trajectory = play(plan.task, plan.make(), id=plan.id, most=most)
        if not trajectory.turns:
            return Played(plan, trajectory, "has no message")
        return Played(plan, trajectory, "" if replays(plan.task, trajectory) else "does not replay")
    except NoReply as error:  # of this one
        return Played(plan, nothing, str(error))
    except EndpointError as error:
        failed.append(error)
        return Played(plan, nothing, str(error))
    except Exception as error:  # the environment's: one trajectory is lost to it, the others are not
        return Played(plan, nothing, f"{type(error).__name__}: {error}")


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
        agent = Endpoint(arguments.endpoint, arguments.model, os.environ.get("OPENAI_API_KEY", ""))
        for task in (task for pool in pools.values() for task in pool):
            yield Plan(task, arguments.model, lambda: partial(act, agent))
    else:
        yield from _references(pools, entry, share=arguments.degraded, seed=arguments.seed)


def _references(pools: Mapping[str, list[Task]], entry: Entry, *, share: float, seed: int) -> Iterator[Plan]:
    """Each task's reference; of a `share` of them one made worse instead."""
    for pool in pools.values():
        for task in pool:
            rng = Random(f"{seed}/{task.id}")
            if rng.random() >= share:
                yield Plan(task, "reference", partial(_reference, entry, task))
                continue
            other = rng.choice([one for one in pool if one.id != task.id] or [task])
            kind = rng.choice(sorted(KINDS))
            yield Plan(task, kind, partial(_worse, entry, (task, other), kind=kind, rng=rng))


def _reference(entry: Entry, task: Task) -> Act:
    return following(entry.oracle(task))


def _worse(entry: Entry, tasks: tuple[Task, Task], *, kind: str, rng: Random) -> Act:
    own, other = (list(entry.oracle(task)) for task in tasks)
    return following(KINDS[kind](own, other, rng))


def _imported(path: Path, pools: Mapping[str, Sequence[Task]], calls: str) -> Iterator[Plan]:
    known = {task.id: task for pool in pools.values() for task in pool}
    try:
        recorded = lines(path)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); each line must be like {SHAPE}") from error
    for number, line in recorded:
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
            acted = _acted(cast(list[dict[str, Json]], messages), known[id], calls)
            mark = blake2b(repr(acted).encode(errors="surrogatepass"), digest_size=6).hexdigest()
            return Plan(known[id], "recorded", partial(following, acted), mark)
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


def _tell(kept: Sequence[Played], lost: Sequence[Played], out: Path, *, known: int) -> None:
    print(f"{'source':16}{'trajectories':>13}{'solved':>8}{'actions':>9}")
    for source in sorted({one.plan.source for one in kept}):
        own = [one.trajectory for one in kept if one.plan.source == source]
        actions = sum(len(one.turns) for one in own) / len(own)
        print(f"{source:16}{len(own):13}{sum(one.success for one in own):8}{actions:9.1f}")
    for one in lost[:MAX_SHOWN]:
        print(f"left out: {one.plan.id}: {one.problem}")
    if len(lost) > MAX_SHOWN:
        print(f"left out: {len(lost) - MAX_SHOWN} more")
    solved = sum(one.trajectory.success for one in kept)
    where = f": {out}" if kept else "; no file was written" if not known else f"; {out} stays as it is"
    print(f"{len(kept)} trajectories, {solved} of them solve their task{where}" + (f", behind {known}" if kept and known else ""))
