"""Checkpoints: the latest whole one is found, whatever happened to the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.checkpoint import CheckpointError, begin, commit, latest, prune, verify, writing
from learner.errors import reason


def checkpoint(folder: Path, step: int) -> Path:
    scratch = begin(folder, step)
    (scratch / "learner").mkdir()
    (scratch / "learner" / "weights.bin").write_bytes(bytes([step]) * 1000)
    (scratch / "ledger.json").write_text(f"[{step}]")
    (scratch / "empty").touch()
    return commit(scratch).path


def test_the_newest_is_found(tmp_path):
    assert latest(tmp_path) is None
    for step in (9, 10):
        checkpoint(tmp_path, step)
    found = latest(tmp_path)
    assert found and found.step == 10 and found.path.name == "step-000010"
    assert (found.path / "learner" / "weights.bin").read_bytes() == b"\n" * 1000


def test_a_kill_while_writing_leaves_the_one_before(tmp_path):
    checkpoint(tmp_path, 1)
    scratch = begin(tmp_path, 2)
    (scratch / "ledger.json").write_text("[")
    found = latest(tmp_path)
    assert found and found.step == 1
    assert list(begin(tmp_path, 2).iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "add", "manifest"])
def test_a_damaged_one_is_skipped_and_named(tmp_path, caplog, damage):
    checkpoint(tmp_path, 1)
    path = checkpoint(tmp_path, 2)
    file = path / "learner" / "weights.bin"
    match damage:
        case "flip":
            file.write_bytes(b"\x02" * 999 + b"\x03")
        case "cut":
            file.write_bytes(b"\x02" * 10)
        case "remove":
            file.unlink()
        case "add":
            (path / "stray").touch()
        case _:
            (path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="step-000002"):
        verify(path)
    found = latest(tmp_path)
    assert found and found.step == 1
    assert "step-000002 is skipped" in caplog.text


def test_a_step_that_is_redone_replaces_its_checkpoint(tmp_path):
    checkpoint(tmp_path, 3)
    scratch = begin(tmp_path, 3)
    (scratch / "other").write_text("new")
    assert (commit(scratch).path / "other").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


def test_prune_keeps_the_newest(tmp_path):
    for step in (1, 2, 10):
        checkpoint(tmp_path, step)
    begin(tmp_path, 11)
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000010"]


class Carried(Exception):
    """What an actor raised, as Ray hands it on."""

    def __init__(self, cause: Exception | None) -> None:
        super().__init__("ray::Learner.save() and a trace")
        self.cause = cause


def test_one_that_cannot_be_written_leaves_those_before_and_tells_the_room(tmp_path):
    for step in (1, 2):
        with writing(tmp_path, step, keep=1) as scratch:
            (scratch / "weights").write_text("w")
    with pytest.raises(CheckpointError, match=r"step 3 .*\(RuntimeError: unexpected pos 576\); [\d.]+ GiB are free for"):
        with writing(tmp_path, 3, keep=1) as scratch:
            (scratch / "weights").write_text("w")
            raise ExceptionGroup("two", [Carried(RuntimeError("unexpected pos 576\nvs 534"))])
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
    assert reason(Carried(None)) == "Carried: ray::Learner.save() and a trace"
