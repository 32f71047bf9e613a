"""The store: finished trajectories, one row each, written before they count: as Arrow, and as Parquet once merged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from envs.types import Assignment, Group, Message, Task, Trajectory, Turn

SPLITS = ("train", "validation", "test")
FILES_PER_CHUNK = 64  # what a compaction holds in memory at once
READ_ATTEMPTS = 5

# Per-token columns have one entry per token of the flat sequence; off the mask logprobs are 0 and versions -1.
SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("assignment_id", pa.int64()),
        ("task_id", pa.string()),
        ("env", pa.string()),
        ("level", pa.string()),
        ("split", pa.string()),
        ("stage", pa.string()),
        ("augmentation", pa.float64()),
        ("rubric", pa.string()),
        ("step", pa.int64()),
        ("version", pa.int64()),
        ("group_index", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("mask", pa.list_(pa.bool_())),
        ("logprobs", pa.list_(pa.float32())),
        ("versions", pa.list_(pa.int32())),
        ("turn_starts", pa.list_(pa.int32())),
        ("authors", pa.list_(pa.string())),
        ("temperatures", pa.list_(pa.float32())),
        ("reward", pa.float64()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("turn_rewards", pa.list_(pa.float64())),
        ("success", pa.bool_()),
        ("stop", pa.string()),
        ("hints", pa.list_(pa.string())),
        ("messages", pa.string()),
        ("seconds", pa.float64()),
        ("spent", pa.map_(pa.string(), pa.float64())),
        ("fault", pa.string()),
    ]
)
KEY = ("split", "step", "trajectory_id")


class Store:
    """One Arrow file per group, which costs a thirtieth of a Parquet one to write; `compact` merges them into Parquet parts.

    `step` is the number of optimiser steps done at the time. A training group of an id that was stored before (a resumed run)
    supersedes it; the same validation or test task is kept once per step.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, group: Group, *, split: str, step: int) -> Path:
        """Write one group; it is on disk, whole, when this returns."""
        folder = self._folder / "trajectories" / _known(split)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{group.assignment.id:08d}.arrow"
        path = folder / (name if split == "train" else f"{step:06d}-{name}")
        with pa.ipc.new_file(_temporary(path), SCHEMA) as writer:
            writer.write_table(as_table(group, split, step))
        _settle(path)
        return path

    def compact(self) -> None:
        """Merge the files of single groups into one part per split. A kill at any point loses and doubles no row."""
        for split in SPLITS:
            self._merge(self._folder / "trajectories" / split)

    def _merge(self, folder: Path) -> None:
        singles = _singles(folder)
        if not singles:
            return
        parts = _parts(folder)
        number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0
        path = folder / f"part-{number:06d}.parquet"
        with pq.ParquetWriter(_temporary(path), SCHEMA, compression="zstd") as writer:
            for start in range(0, len(singles), FILES_PER_CHUNK):
                chunk = singles[start : start + FILES_PER_CHUNK]
                writer.write_table(pa.concat_tables([_columns(single, SCHEMA.names) for single in chunk]))
        _settle(path)
        for single in singles:
            single.unlink()


def read(folder: Path, *, columns: Sequence[str] | None = None, split: str | None = None) -> pa.Table:
    """A run's trajectories, of one split or all, each once (its latest row). Where there are none, an empty table."""
    wanted = list(columns) if columns is not None else SCHEMA.names
    if unknown := [name for name in wanted if name not in SCHEMA.names]:
        raise ValueError(f"the store has no column {unknown[0]!r}; there are: {', '.join(SCHEMA.names)}")
    splits = SPLITS if split is None else (_known(split),)
    table = _read_all([folder / "trajectories" / name for name in splits], [*{*wanted, *KEY}])
    return _latest(table).select(wanted)


def _read_all(folders: Sequence[Path], columns: list[str]) -> pa.Table:
    empty = SCHEMA.empty_table().select(columns)
    for attempt in range(READ_ATTEMPTS):
        # Singles are listed before parts: a compaction between the two shows rows twice, never not at all.
        singles = [single for folder in folders for single in _singles(folder)]
        files = [part for folder in folders for part in _parts(folder)] + singles
        try:
            tables = [_columns(file, columns) for file in files]
            return pa.concat_tables([empty, *tables])
        except FileNotFoundError:
            if attempt == READ_ATTEMPTS - 1:
                raise
    return empty


def _columns(file: Path, columns: list[str]) -> pa.Table:
    """These columns of one file; null where an older run's store had none."""
    if file.suffix == ".arrow":
        with pa.OSFile(str(file)) as source:
            table = pa.ipc.open_file(source).read_all()
    else:
        table = pq.ParquetFile(file).read(columns)
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
    return table.select(columns)


def _latest(table: pa.Table) -> pa.Table:
    """Each trajectory's last row: files come oldest first. A training trajectory is one whatever its step."""
    rows = zip(*(table[name].to_pylist() for name in KEY), strict=True)
    last = {(split, -1 if split == "train" else step, trajectory_id): at for at, (split, step, trajectory_id) in enumerate(rows)}
    return table if len(last) == len(table) else table.take(pa.array(sorted(last.values()), pa.int64()))


def as_table(group: Group, split: str, step: int) -> pa.Table:
    """One row per trajectory of the group."""
    assignment = group.assignment
    rows = [
        {**_placed(assignment), "split": split, "step": step, "group_index": index, **_recorded(assignment.task, one)}
        for index, one in enumerate(group.trajectories)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _placed(assignment: Assignment) -> dict[str, object]:
    return {
        "assignment_id": assignment.id,
        "env": assignment.task.env,
        "level": assignment.task.level,
        "stage": assignment.stage,
        "augmentation": assignment.augmentation,
        "rubric": assignment.reward,
    }


def _recorded(task: Task, trajectory: Trajectory) -> dict[str, object]:
    turns = trajectory.turns
    return {
        "trajectory_id": trajectory.id,
        "task_id": trajectory.task_id,
        "version": trajectory.version,
        **_per_token(turns),
        "authors": [turn.author.value for turn in turns],
        "temperatures": [turn.temperature for turn in turns],
        "reward": trajectory.reward,
        "parts": list(trajectory.parts.items()),
        "turn_rewards": list(trajectory.turn_rewards),
        "success": trajectory.success,
        "stop": trajectory.stop.value,
        "hints": list(trajectory.hints),
        "messages": json.dumps([_plain(message) for message in _conversation(task, trajectory)]),
        "seconds": trajectory.seconds,
        "spent": list(trajectory.spent.items()),
        "fault": trajectory.fault.encode(errors="replace").decode(),
    }


def _per_token(turns: Sequence[Turn]) -> dict[str, NDArray[np.generic]]:
    """The columns with an entry per token, and where each turn begins: as arrays, which Arrow takes far faster than lists."""
    ends = np.cumsum([len(turn.context) + len(turn.action) for turn in turns], dtype=np.int32)
    size = int(ends[-1]) if turns else 0
    mask, logprobs, versions = np.zeros(size, np.bool_), np.zeros(size, np.float32), np.full(size, -1, np.int32)
    for turn, end in zip(turns, ends, strict=True):
        begin = end - len(turn.action)
        mask[begin:end], logprobs[begin:end] = True, turn.logprobs
        for span in turn.versions:
            versions[begin + span.start : begin + span.stop] = span.version
    tokens = np.fromiter((token for turn in turns for part in (turn.context, turn.action) for token in part), np.int32, size)
    starts = np.concatenate([np.zeros(1, np.int32), ends])[: len(turns)]
    return {"tokens": tokens, "mask": mask, "logprobs": logprobs, "versions": versions, "turn_starts": starts}


def _conversation(task: Task, trajectory: Trajectory) -> Iterator[Message]:
    yield from trajectory.opening or task.messages
    for turn in trajectory.turns:
        yield turn.message
        yield from turn.observation.messages


def _plain(message: Message) -> dict[str, object]:
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in message.calls]
    return {"role": message.role, "content": message.content, "calls": calls, "malformed": message.malformed}


def _known(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"no split is called {split!r}; there are: {', '.join(SPLITS)}")
    return split


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _singles(folder: Path) -> list[Path]:
    # Runs begun by older versions have Parquet ones, which came before any Arrow one.
    return [*sorted(folder.glob("[0-9]*.parquet")), *sorted(folder.glob("[0-9]*.arrow"))]


def _temporary(path: Path) -> Path:
    return path.with_suffix(".tmp")


def _settle(path: Path) -> None:
    """Give a finished temporary file its name, once its content is on disk."""
    temporary = _temporary(path)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
