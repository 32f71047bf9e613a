"""`tiltyard experts` from every source, and files that are no experts."""

import json
import re
from concurrent.futures import as_completed
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.cli import main
from cluster.config import Config, ConfigError
from cluster.experts import experts_of, read
from cluster.preflight import check_levels
from cluster.store import SCHEMA
from curriculum.config import CurriculumConfig, StageConfig
from envs.agent import spoken
from envs.environment import environment
from tests.envs.openai_server import answering

SHOP = environment("shop")
POOL = SHOP.taskset("train", "2")[:20]


def experts(out: Path, *arguments: str) -> int:
    return main(["experts", "shop", "--levels", "2", "--most", "20", "--out", str(out), *arguments])


def test_references_are_recorded_with_what_they_were_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a" / "experts.parquet"
    assert experts(out) == 0
    assert "20 trajectories, 20 of them solve their task" in capsys.readouterr().out
    assert pq.read_schema(out).equals(SCHEMA)
    found = list(read(out))
    assert [one.task_id for one in found] == [task.id for task in POOL] and all(one.success for one in found)
    env = SHOP.make()
    for task, one in zip(POOL, found, strict=True):
        env.reset(task)
        assert list(one.messages) == list(SHOP.oracle(task))
        assert [env.step(message).messages for message in one.messages] == list(one.answers)


def test_a_share_is_made_worse_from_the_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (tmp_path / f"{n}.parquet" for n in range(3))
    assert experts(first, "--degraded", "0.7") == experts(second, "--degraded", "0.7") == 0
    assert experts(third, "--degraded", "0.7", "--seed", "1") == 0
    assert list(read(first)) == list(read(second)) != list(read(third))
    kinds = {one.id.split("/")[0] for one in read(first)}
    assert kinds == {"reference", "detour", "early_stop", "wrong_argument", "wrong_branch"}
    assert 0 < sum(one.success for one in read(first)) < 20
    assert "wrong_branch" in capsys.readouterr().out


def logged(path: Path, *, opening: bool, tagged: bool) -> None:
    """The references as message logs, the calls in the API's fields or in the text."""
    with path.open("w") as file:
        for task in POOL:
            messages = [*(task.messages if opening else ()), *SHOP.oracle(task)]
            told = spoken(messages)
            if tagged:
                texts = [[{"name": call.name, "arguments": dict(call.arguments)} for call in one.calls] for one in messages]
                written = ["".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls) for calls in texts]
                told = [{"role": one.role, "content": text or one.content} for one, text in zip(messages, written, strict=True)]
            file.write(json.dumps({"task_id": task.id, "messages": told}) + "\n")


@pytest.mark.parametrize(("opening", "tagged"), [(False, False), (False, True), (True, False)])
def test_logs_are_imported(tmp_path: Path, opening: bool, tagged: bool) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "experts.parquet"
    logged(log, opening=opening, tagged=tagged)
    assert experts(out, "--import", str(log), *(["--calls", "json"] if tagged else [])) == 0
    assert sum(one.success for one in read(out)) == 20


def logged_line(message: dict[str, Any]) -> str:
    return json.dumps({"task_id": POOL[0].id, "messages": [{"role": "assistant", **message}]})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ('{"task_id": "shop/train/9/0", "messages": []}', "line 2: no task is called 'shop/train/9/0'; there are 20"),
        ('{"messages": 3}', "line 2: .* has not the form"),
        (logged_line({"tool_calls": ["x"]}), "line 2: 'x' is no tool call"),
        (logged_line({"tool_calls": [{"name": "x", "arguments": "{}"}]}), "line 2: .*is no tool call"),
        (logged_line({"function_call": {"name": "x", "arguments": "{}"}}), "line 2: .*write it as 'tool_calls'"),
        (logged_line({"content": 7}), "line 2: a content of '7' is no text"),
    ],
)
def test_a_broken_log_names_the_line(tmp_path: Path, line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(f"\n{line}\n")
    assert experts(tmp_path / "out", "--import", str(log)) == 2
    told = capsys.readouterr().err
    assert str(log) in told and re.search(words, told)


def acting(*, replies: int = 10**9) -> AbstractContextManager[str]:
    """A server whose model plays the reference of the task it is asked about, and fails after so many replies."""
    left = iter(range(replies))
    by_request = {task.messages[-1].content: task for task in reversed(POOL)}

    def answer(asked: dict[str, Any]) -> dict[str, Any] | None:
        if next(left, None) is None:
            return None
        opening = len(POOL[0].messages)
        task = by_request[asked["messages"][opening - 1]["content"]]
        done = sum(one["role"] == "assistant" for one in asked["messages"][opening:])
        (message,) = spoken([SHOP.oracle(task)[done]])
        return message

    return answering(answer)


def test_a_model_plays_and_what_it_did_is_recorded(tmp_path: Path) -> None:
    out = tmp_path / "experts.parquet"
    with acting() as url:
        assert experts(out, "--endpoint", url, "--model", "m", "--parallel", "4") == 0
    assert sum(one.success for one in read(out)) >= 15  # the same request may stand in tasks with other catalogues


def test_what_was_played_before_an_endpoint_failed_is_kept_and_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole, told = tmp_path / "part.parquet", tmp_path / "whole.parquet", ("--model", "m", "--endpoint")
    with acting(replies=30) as url:
        assert experts(out, *told, url) == 1
    first = list(read(out))
    assert 3 <= len(first) < 20 and "--resume plays the rest" in capsys.readouterr().err
    with acting() as url:
        assert experts(out, *told, url, "--resume") == experts(whole, *told, url) == 0
    assert list(read(out)) == list(read(whole)) and list(read(out))[: len(first)] == first


def test_one_request_that_is_refused_costs_one_trajectory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "experts.parquet"
    asked = iter(range(10**9))
    with answering(lambda _: {} if next(asked) == 5 else {"role": "assistant", "content": "no"}) as url:
        assert experts(out, "--endpoint", url, "--model", "m") == 0
        assert len(list(read(out))) < 20 and "a reply without a message" in capsys.readouterr().out
        assert experts(out, "--endpoint", url, "--model", "m", "--resume") == 0
    assert len(list(read(out))) == 20
    assert experts(out, "--resume", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m") == 0  # nothing is left to ask
    assert f"0 trajectories, 0 of them solve their task; {out} stays as it is" in capsys.readouterr().out


def test_what_was_played_by_ctrl_c_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(futures: Any) -> Any:
        yield from islice(as_completed(futures), 7)
        raise KeyboardInterrupt

    out = tmp_path / "experts.parquet"
    with monkeypatch.context() as patch:
        patch.setattr("cluster.experts_command.as_completed", pressed)
        assert experts(out) == 1
    assert len(list(read(out))) == 7 and "--resume plays the rest" in capsys.readouterr().err
    assert experts(out, "--resume") == 0 and len(list(read(out))) == 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--parallel", "0"], "--parallel is 0; it must be at least 1"),
        (["--most", "-3"], "--most is -3"),
        (["--degraded", "7"], "--degraded is 7.0; it is a share"),
        (["--out", "."], "which is a folder"),
    ],
)
def test_what_cannot_be_asked_for_is_said_first(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert experts(tmp_path / "x", *arguments) == 2
    assert told in capsys.readouterr().err


def test_logs_imported_one_after_the_other_are_all_kept(tmp_path: Path) -> None:
    out, first, second = (tmp_path / name for name in ("experts.parquet", "a.jsonl", "b.jsonl"))
    logged(first, opening=False, tagged=False)
    second.write_text(json.dumps({"task_id": POOL[0].id, "messages": [{"role": "assistant", "content": "Done"}]}) + "\n")
    assert experts(out, "--import", str(first)) == experts(out, "--import", str(second), "--resume") == 0
    assert len(list(read(out))) == 21 and len({one.id for one in read(out)}) == 21


def test_an_endpoint_that_does_not_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert experts(tmp_path / "x", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--most", "1") == 1
    assert "http://127.0.0.1:9/v1" in capsys.readouterr().err
    assert experts(tmp_path / "x", "--endpoint", "http://127.0.0.1:9/v1") == 2
    assert "--model" in capsys.readouterr().err


def with_file(path: Path) -> Config:
    stage = StageConfig("eef", {"2": 1.0}, experts="states", credit="eef")
    return Config(curriculum=CurriculumConfig([stage], experts=str(path)))


def test_a_broken_file_is_refused_before_anything_starts(tmp_path: Path) -> None:
    good = tmp_path / "good.parquet"
    experts(good)
    check_levels(with_file(good))
    whole = pq.read_table(good)
    cases = {
        "absent": (lambda path: None, "there is no file"),
        "text": (lambda path: path.write_text("hello"), "cannot be read as experts"),
        "cut": (lambda path: path.write_bytes(good.read_bytes()[:-100]), "cannot be read as experts"),
        "columns": (lambda path: pq.write_table(whole.drop_columns(["messages"]), path), "'?messages'?"),
        "json": (
            lambda path: pq.write_table(whole.set_column(25, SCHEMA.field("messages"), pa.array(["["] * 20)), path),
            "row 1: .*make it anew with tiltyard experts",
        ),
        "turns": (
            lambda path: pq.write_table(whole.set_column(25, SCHEMA.field("messages"), pa.array(["[]"] * 20)), path),
            "row 1: .*0 of . messages",
        ),
        "elsewhere": (
            lambda path: pq.write_table(whole.set_column(3, SCHEMA.field("env"), pa.array(["bfcl"] * 20)), path),
            "was recorded in bfcl, not shop; make a file with",
        ),
        "others": (
            lambda path: pq.write_table(whole.set_column(2, SCHEMA.field("task_id"), pa.array(["x"] * 20)), path),
            "none is a training task of shop",
        ),
    }
    assert SCHEMA.names[3] == "env" and SCHEMA.names[25] == "messages" and SCHEMA.names[2] == "task_id"
    for name, (spoil, words) in cases.items():
        spoil(tmp_path / name)
        with pytest.raises(ConfigError, match=words) as error:
            check_levels(with_file(tmp_path / name))
        assert str(tmp_path / name) in str(error.value) and "tiltyard experts" in str(error.value)


def test_tasks_of_other_sets_are_passed_over(tmp_path: Path) -> None:
    out = tmp_path / "experts.parquet"
    experts(out)
    config = with_file(out)
    found = experts_of(config, {"2": POOL[:3]})
    assert set(found.of) == {task.id for task in POOL[:3]}
    assert experts_of(replace(config, curriculum=CurriculumConfig()), {"2": POOL}).of == {}
