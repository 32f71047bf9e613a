"""Folders of a process's own: what is left by the dead goes, what belongs to the living stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learner import files

DEAD = 2**22 + 1  # above the highest number that Linux gives a process


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In place of shared memory."""
    monkeypatch.setattr(files, "BASE", tmp_path)
    return tmp_path


def test_what_a_dead_process_of_this_machine_left_is_removed_and_nothing_else(base: Path) -> None:
    mine = files.scratch("run-a")
    machine = mine.name.split("-")[-2]
    dead = base / f"tiltyard-run-a-{machine}-{DEAD}"
    others = [base / "tiltyard-my-own-notes", base / "tiltyard-canary", base / f"other-run-{machine}-{DEAD}"]
    for folder in (mine, dead, *others):
        folder.mkdir()
    assert files.scratch("replica").parent == base
    assert not dead.exists() and mine.exists() and all(folder.exists() for folder in others)


def test_the_folder_that_a_driver_elsewhere_named_is_left_to_its_learner(base: Path) -> None:
    """The driver's process is not of this machine, where its number says nothing."""
    live, old = base / f"tiltyard-run-00000000-{DEAD}", base / f"tiltyard-run-ffffffff-{os.getpid()}"
    for folder in (live, old):
        folder.mkdir()
    long_ago = time.time() - 2 * files.ABANDONED_S
    os.utime(old, (long_ago, long_ago))
    files.scratch("replica")
    assert live.exists() and not old.exists()


def test_another_process_leaves_this_ones_folder_alone(base: Path) -> None:
    mine = files.scratch("run")
    mine.mkdir()
    code = f"from pathlib import Path; from learner import files; files.BASE = Path({str(base)!r}); files.scratch('replica')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert mine.exists()
