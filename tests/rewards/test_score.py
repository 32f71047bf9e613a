import json
from pathlib import Path

import pytest

from envs.shop import LEVELS, taskset
from envs.shop.shop import MAX_MISTAKES
from envs.types import Json, Task
from rewards.score import SHAPE, score_file, score_line


def recorded(task: Task) -> str:
    return json.dumps({"task_id": task.id, "turns": [entry["calls"] for entry in task.truth]})


def written(folder: Path, *lines: str) -> str:
    path = folder / "calls.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("level", LEVELS)
def test_recorded_reference_calls_earn_everything(tmp_path: Path, level: str):
    tasks = taskset("test", level)
    scores = list(score_file("shop", written(tmp_path, *map(recorded, tasks))))
    assert [score["task_id"] for score in scores] == [task.id for task in tasks]
    assert all(score["success"] is True and score["reward"] == 1.0 and score["errors"] == [] for score in scores)
    for task, score in zip(tasks, scores, strict=True):
        results = [[outcome["result"] for outcome in turn] for turn in score["turns"]]
        assert results == [entry["results"] for entry in task.truth]


def test_what_went_wrong_is_told():
    bad: Json = {"name": "price", "arguments": {"id": "lamp"}}
    score = score_line("shop", json.dumps({"task_id": "shop/test/1/0", "turns": [[bad]]}))
    assert score["success"] is False and score["errors"] == ["user turn 1: price: bad id"]
    assert score["turns"] == [[{**bad, "error": "bad id"}]]


def test_a_recording_that_stops_early_or_runs_too_long_is_scored_as_far_as_it_goes():
    task = taskset("test", "3")[0]
    assert score_line("shop", json.dumps({"task_id": task.id, "turns": []}))["success"] is False
    call: Json = {"name": "checkout", "arguments": {}}
    long = score_line("shop", json.dumps({"task_id": task.id, "turns": [[call] * 50] * 9}))
    assert len(long["errors"]) == MAX_MISTAKES


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "form"),
        ('{"task_id": "shop/test/1/0"}', "form"),
        ('{"task_id": "shop/test/1/0", "turns": [3]}', "form"),
        ('{"task_id": "shop/test/1/0", "turns": [[3]]}', "is no call"),
        ('{"task_id": "shop/test/1/0", "turns": [[{"name": 3, "arguments": {}}]]}', "is no call"),
        ('{"task_id": "shop/test/1/x", "turns": []}', "no task is called 'shop/test/1/x'"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path: Path, line: str, says: str):
    scores = score_file("shop", written(tmp_path, recorded(taskset("test", "1")[0]), "", line))
    assert next(scores)["success"] is True
    with pytest.raises(ValueError, match=r"calls.jsonl, line 3") as raised:
        next(scores)
    assert says in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="absent.jsonl.*JSON object per line"):
        list(score_file("shop", str(tmp_path / "absent.jsonl")))


def test_an_unknown_environment_is_named():
    with pytest.raises(ValueError, match="'shoe'.*shop"):
        score_line("shoe", SHAPE)


def test_the_shape_shown_in_errors_is_one_that_works():
    assert score_line("shop", SHAPE)["task_id"] == "shop/test/1/0"
