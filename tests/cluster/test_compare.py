"""`make compare` called again: what has ended stays, what was stopped goes on or begins anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy import compare
from learner import checkpoint

ARM = Path("deploy/experiments/experts/eef.yaml")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sequence[str]]:
    """What is run; each run is stopped before its end."""
    told: list[Sequence[str]] = []
    monkeypatch.setattr(compare, "RUNS", tmp_path)
    monkeypatch.setattr(compare, "_run", told.append)
    return told


def run(folder: Path, *, step: int = 0) -> Path:
    path = folder / "experts-eef-0"
    path.mkdir()
    (path / "config.yaml").write_text("name: experts-eef-0")
    if step:
        with checkpoint.writing(path / "checkpoints", step, keep=1) as scratch:
            (scratch / "weights").write_text("w")
    return path


def test_an_arm_that_was_stopped_goes_on_from_its_checkpoint(commands, tmp_path: Path) -> None:
    path = run(tmp_path, step=3)
    with pytest.raises(SystemExit, match="was stopped"):
        compare.train(ARM, 0, [], test_before=True)
    assert commands == [["train", "--resume", str(path)]]


def test_an_arm_that_was_stopped_before_its_first_step_begins_anew(commands, tmp_path: Path) -> None:
    path = run(tmp_path)
    with pytest.raises(SystemExit, match="was stopped"):
        compare.train(ARM, 0, ["learner.num_steps=2"], test_before=True)
    assert commands[0][:3] == ["train", str(ARM), "learner.num_steps=2"] and not path.exists()


def test_an_arm_that_has_ended_is_read_and_its_checkpoints_go(commands, monkeypatch, tmp_path: Path) -> None:
    path = run(tmp_path, step=3)
    (path / "summary.json").write_text(json.dumps({}))
    monkeypatch.setattr(compare, "outcome", lambda folder: folder)
    assert compare.train(ARM, 0, [], test_before=True) == path
    assert not commands and not (path / "checkpoints").exists()
