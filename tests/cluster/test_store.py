import json
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.store import SCHEMA, Store, read
from envs.types import (
    Assignment,
    Author,
    CallOutcome,
    Group,
    Message,
    Observation,
    Signals,
    Span,
    Stop,
    Task,
    ToolCall,
    Trajectory,
    Turn,
)

TASK = Task("t1", "shop", "2", (Message("user", "What does a lamp cost?"),), (), {}, ())
CALL = ToolCall("find", {"name": "lamp \ud800"})
TURNS = (
    Turn(
        context=(5, 6, 7),
        action=(8, 9, 10),
        logprobs=(-0.5, -1.0, -2.0),
        versions=(Span(3, 0, 2), Span(4, 2, 3)),
        message=Message("assistant", "<tool_call>…", (CALL,)),
        observation=Observation(
            (Message("tool", '{"error":"bad id"}'),),
            signals=Signals((CallOutcome(CALL, None, "bad id"),), hints=("find/bad id",)),
        ),
    ),
    Turn((11,), (12,), (0.0,), (), Message("assistant", "42"), Observation((), done=True), Author.EXPERT),
)


def group(assignment_id: int = 7, *, num: int = 2, reward: float = 0.75) -> Group:
    assignment = Assignment(assignment_id, TASK, "solve", 0.5, "progress", num)
    first = Trajectory(
        f"{assignment_id}-0",
        "t1",
        TURNS,
        Stop.DONE,
        reward,
        {"progress": 1.0, "errors": -0.25},
        (0.75,),
        True,
        1.5,
        {"engine": 1.25},
    )
    others = (Trajectory(f"{assignment_id}-{at}", "t1", (), Stop.FAULT, fault="Killed: \udcff") for at in range(1, num))
    return Group(assignment, (first, *others))


def test_an_opening_that_is_more_than_the_tasks_messages_is_stored(tmp_path):
    first = group().trajectories[0]
    opened = replace(first, opening=(*TASK.messages, Message("user", "You are in a hall.")))
    Store(tmp_path).put(Group(group().assignment, (opened,)), split="train", step=0)
    (told,) = read(tmp_path, columns=["messages"])["messages"].to_pylist()
    assert [one["content"] for one in json.loads(told)][:2] == ["What does a lamp cost?", "You are in a hall."]


def test_a_group_comes_back_as_it_went_in(tmp_path):
    path = Store(tmp_path).put(group(), split="train", step=3)
    assert path == tmp_path / "trajectories" / "train" / "00000007.arrow"
    first, second = read(tmp_path).to_pylist()
    assert json.loads(first.pop("messages")) == [
        {"role": "user", "content": "What does a lamp cost?", "calls": [], "malformed": ""},
        {
            "role": "assistant",
            "content": "<tool_call>…",
            "calls": [{"name": "find", "arguments": {"name": "lamp \ud800"}}],
            "malformed": "",
        },
        {"role": "tool", "content": '{"error":"bad id"}', "calls": [], "malformed": ""},
        {"role": "assistant", "content": "42", "calls": [], "malformed": ""},
    ]
    assert first == {
        "trajectory_id": "7-0",
        "assignment_id": 7,
        "task_id": "t1",
        "env": "shop",
        "level": "2",
        "split": "train",
        "stage": "solve",
        "augmentation": 0.5,
        "rubric": "progress",
        "step": 3,
        "version": 3,
        "group_index": 0,
        "tokens": [5, 6, 7, 8, 9, 10, 11, 12],
        "mask": [False, False, False, True, True, True, False, True],
        "logprobs": [0.0, 0.0, 0.0, -0.5, -1.0, -2.0, 0.0, 0.0],
        "versions": [-1, -1, -1, 3, 3, 4, -1, -1],
        "turn_starts": [0, 6],
        "authors": ["policy", "expert"],
        "temperatures": [1.0, 1.0],
        "reward": 0.75,
        "parts": [("progress", 1.0), ("errors", -0.25)],
        "turn_rewards": [0.75],
        "success": True,
        "stop": "done",
        "hints": ["find/bad id"],
        "seconds": 1.5,
        "spent": [("engine", 1.25)],
        "fault": "",
    }
    assert (second["group_index"], second["stop"], second["fault"], second["tokens"]) == (1, "fault", "Killed: ?", [])


def test_the_schema_is_the_same_in_every_file(tmp_path):
    store = Store(tmp_path)
    store.put(group(0, num=1), split="train", step=0)
    store.put(group(1, num=3), split="train", step=0)
    store.put(group(1), split="test", step=0)
    store.compact()
    files = sorted((tmp_path / "trajectories").rglob("*.*"))
    assert [file.name for file in files] == ["part-000000.parquet", "part-000000.parquet"]
    assert all(pq.read_schema(file).equals(SCHEMA) for file in files)
    assert read(tmp_path).schema.equals(SCHEMA)


def test_columns_and_splits_are_chosen(tmp_path):
    store = Store(tmp_path)
    store.put(group(0), split="train", step=0)
    store.put(group(1), split="validation", step=5)
    assert read(tmp_path, columns=["reward", "split"], split="validation").to_pylist() == [
        {"reward": 0.75, "split": "validation"},
        {"reward": 0.0, "split": "validation"},
    ]
    with pytest.raises(ValueError, match="no column 'prize'"):
        read(tmp_path, columns=["prize"])
    for call in (lambda: read(tmp_path, split="dev"), lambda: store.put(group(), split="dev", step=0)):
        with pytest.raises(ValueError, match="no split is called 'dev'; there are: train, validation, test"):
            call()


def test_an_empty_folder_is_an_empty_table(tmp_path):
    Store(tmp_path).compact()
    assert read(tmp_path / "nowhere").equals(SCHEMA.empty_table())


def ids(table: pa.Table) -> list[str]:
    return sorted(table["trajectory_id"].to_pylist())


def test_compaction_keeps_every_row_and_a_second_one_does_nothing(tmp_path):
    store, folder = Store(tmp_path), tmp_path / "trajectories" / "train"
    for at in range(130):  # more than two chunks
        store.put(group(at, num=1), split="train", step=at)
    before = read(tmp_path)
    store.compact()
    assert [file.name for file in folder.iterdir()] == ["part-000000.parquet"]
    assert read(tmp_path).equals(before)
    stamp = (folder / "part-000000.parquet").stat().st_mtime_ns
    store.compact()
    assert [(file.name, file.stat().st_mtime_ns) for file in folder.iterdir()] == [("part-000000.parquet", stamp)]
    for at in range(130, 133):
        store.put(group(at, num=1), split="train", step=at)
    store.compact()
    assert ids(read(tmp_path)) == sorted(f"{at}-0" for at in range(133))
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("left", [1, 3, 5])
def test_a_kill_between_rename_and_delete_doubles_nothing(tmp_path, left):
    store, folder = Store(tmp_path), tmp_path / "trajectories" / "train"
    for at in range(5):
        store.put(group(at), split="train", step=at)
    before = read(tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    store.compact()
    for at in range(5 - left, 5):
        shutil.copy(tmp_path / "copy" / f"{at:08d}.arrow", folder)
    assert ids(read(tmp_path)) == ids(before)
    store.compact()
    assert ids(read(tmp_path)) == ids(before)


def test_a_kill_while_writing_leaves_what_was(tmp_path):
    store, folder = Store(tmp_path), tmp_path / "trajectories" / "train"
    for at in range(3):
        store.put(group(at), split="train", step=at)
    (folder / "part-000000.tmp").write_bytes(b"PAR1 half a file")
    (folder / "00000009.tmp").write_bytes(b"PAR1")
    assert len(read(tmp_path)) == 6
    store.compact()
    assert len(read(tmp_path)) == 6


def test_a_training_group_played_again_supersedes_and_a_validation_task_is_kept_per_step(tmp_path):
    store = Store(tmp_path)
    for at in range(2):
        store.put(group(at, num=1, reward=0.1), split="train", step=4)
    store.compact()
    store.put(group(1, num=1, reward=0.9), split="train", step=2)
    for step in (0, 5):
        store.put(group(1, num=1), split="validation", step=step)
    for _ in range(2):
        rewards = read(tmp_path, columns=["trajectory_id", "reward"], split="train").to_pylist()
        assert sorted((row["trajectory_id"], row["reward"]) for row in rewards) == [("0-0", 0.1), ("1-0", 0.9)]
        assert sorted(read(tmp_path, columns=["step"], split="validation")["step"].to_pylist()) == [0, 5]
        store.compact()


def test_single_groups_of_an_older_run_are_parquet_and_a_later_one_supersedes_them(tmp_path):
    store = Store(tmp_path)
    for at in range(2):
        written = store.put(group(at, num=1, reward=0.1), split="train", step=0)
        rows = read(tmp_path)
        pq.write_table(rows.slice(len(rows) - 1), written.with_suffix(".parquet"))
        written.unlink()
    store.put(group(1, num=1, reward=0.9), split="train", step=2)
    for _ in range(2):
        rows = read(tmp_path, columns=["trajectory_id", "reward"]).to_pylist()
        assert sorted((row["trajectory_id"], row["reward"]) for row in rows) == [("0-0", 0.1), ("1-0", 0.9)]
        store.compact()


def test_a_store_of_an_older_run_lacks_a_column_and_is_read_and_merged_all_the_same(tmp_path):
    store = Store(tmp_path)
    store.put(group(0), split="train", step=0)
    store.compact()
    part = tmp_path / "trajectories" / "train" / "part-000000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["spent"]), part)
    store.put(group(1), split="train", step=0)
    for _ in range(2):
        rows = read(tmp_path, columns=["assignment_id", "spent"]).to_pylist()
        assert {row["assignment_id"] for row in rows if row["spent"] is None} == {0}
        store.compact()
