"""The store of expert trajectories: a Parquet file with the store's columns, every turn an expert's and without tokens."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.config import Config, ConfigError
from cluster.store import as_table
from curriculum.experts import Expert, Experts, said
from envs.environment import environment
from envs.types import Assignment, Author, Group, Json, Message, Stop, Task, Trajectory, Turn
from rewards.config import RewardsConfig, rubrics

COLUMNS = ("trajectory_id", "task_id", "messages", "authors", "success", "env")
ANEW = "make it anew with tiltyard experts"
Act = Callable[[Task, Sequence[Message]], Message | None]


def play(task: Task, act: Act, *, id: str, most: int) -> Trajectory:
    """An expert's episode of at most `most` messages, rewarded; it stops early where `act` has nothing more to say."""
    env, turns = environment(task.env).make(), list[Turn]()
    try:
        opening = env.reset(task).messages
        conversation = list(opening)
        while len(turns) < most and (message := act(task, conversation)) is not None:
            observation = env.step(message)
            turns.append(Turn((), (), (), (), message, observation, Author.EXPERT))
            if observation.done:
                break
            conversation += [message, *observation.messages]
    finally:
        env.close()
    stop = Stop.DONE if turns and turns[-1].observation.done else Stop.MAX_TURNS
    return rubrics(RewardsConfig())["progress"](task, Trajectory(id, task.id, tuple(turns), stop, opening=opening))


def following(messages: Sequence[Message]) -> Act:
    """Plays these, whatever is answered."""
    left = iter(messages)
    return lambda task, conversation: next(left, None)


def replays(task: Task, trajectory: Trajectory) -> bool:
    """Whether the same messages are answered the same again, to the same end."""
    again = play(task, following([turn.message for turn in trajectory.turns]), id=trajectory.id, most=len(trajectory.turns))
    pairs = ((one.observation.messages, one.observation.done) for one in again.turns)
    return list(pairs) == [(one.observation.messages, one.observation.done) for one in trajectory.turns]


def write(path: Path, played: Sequence[tuple[Task, Trajectory]], *, split: str, after: Path | None = None) -> None:
    """The trajectories as one file, behind those of another; their id says where each is from."""
    tables = [
        as_table(Group(Assignment(n, task, "experts", 0.0, "progress", 1), (one,)), split, 0)
        for n, (task, one) in enumerate(played)
    ]
    if after is not None:
        tables.insert(0, pq.read_table(after))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")
    temporary.rename(path)


def read(path: Path) -> Iterator[Expert]:
    """The file's trajectories. ValueError names the file, the row and the remedy."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}; make it with tiltyard experts")
    try:
        found = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as experts ({str(error).splitlines()[0]}); {ANEW}") from error
    if missing := set(COLUMNS) - set(found.column_names):
        raise ValueError(f"{path} has no column {sorted(missing)[0]!r}, so it holds no experts; {ANEW}")
    for number, row in enumerate(found.to_pylist(), start=1):
        try:
            yield _expert(row)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, row {number}: {error}; {ANEW}") from error


def experts_of(config: Config, pools: Mapping[str, Sequence[Task]]) -> Experts:
    """What the config's file has for these tasks; without a file none. Raises ConfigError."""
    if not config.curriculum.experts:
        return Experts()
    known = {task.id: task for pool in pools.values() for task in pool}
    found: dict[str, list[Expert]] = defaultdict(list)
    try:
        path = Path(config.curriculum.experts)
        for expert in read(path):
            _check_env(path, expert, name=config.envs.name, task=known.get(expert.task_id))
            found[expert.task_id].append(expert)
    except ValueError as error:
        raise ConfigError(f"curriculum.experts: {error}") from None
    if not known.keys() & found.keys():
        example = f", such as {next(iter(found))!r}" if found else ""
        raise ConfigError(
            f"curriculum.experts: {config.curriculum.experts} has {len(found)} tasks{example}; none is a training task of "
            f"{config.envs.name}: make one with tiltyard experts {config.envs.name}"
        )
    return Experts({task_id: tuple(experts) for task_id, experts in found.items() if task_id in known})


def _check_env(path: Path, expert: Expert, *, name: str, task: Task | None) -> None:
    """An environment may have moved to another folder, but its task must ask for the same."""
    is_same = expert.env.partition(":")[0] == name.partition(":")[0]
    if not is_same or (expert.env != name and task and task.messages[-1] not in expert.opening):
        why = "whose task of that name asks for something else" if is_same else f"not {name}"
        raise ValueError(
            f"{path}: expert {expert.id} was recorded in {expert.env}, {why}; make a file with tiltyard experts {name}"
        )


def _expert(row: Mapping[str, Json]) -> Expert:
    """The last messages are the turns', as many of the assistant's as there are turns; those before open the conversation."""
    conversation = said(json.loads(str(row["messages"])))
    num_turns = len(cast(list[str], row["authors"]))
    starts = [at for at, message in enumerate(conversation) if message.role == "assistant"][-num_turns:] if num_turns else []
    if not num_turns or len(starts) < num_turns:
        raise ValueError(f"trajectory {row['trajectory_id']!r} has {len(starts)} of {num_turns} messages")
    ends = [*starts[1:], len(conversation)]
    return Expert(
        str(row["trajectory_id"]),
        str(row["task_id"]),
        tuple(conversation[at] for at in starts),
        tuple(tuple(conversation[at + 1 : end]) for at, end in zip(starts, ends, strict=True)),
        row["success"] is True,
        str(row["env"]),
        tuple(conversation[: starts[0]]),
    )
