"""`tiltyard train` around a run: its folder, its configuration, what earlier runs left. The run itself is a stub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import cli, run, train_command
from cluster.config import Config, load, weights_folder
from learner import checkpoint

SHOP = str(Path(__file__).parents[2] / "deploy" / "experiments" / "shop.yaml")
Run = Callable[[Config, Path], int]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """What a run does, in place of training."""
    monkeypatch.setattr(train_command, "check", lambda config: "model")
    return lambda play: monkeypatch.setattr(run, "start", lambda config, folder, **_: play(config, folder))


def train(folder: Path, *overrides: str) -> int:
    return cli.main(["train", SHOP, f"cluster.runs={folder}", "name=r", *overrides])


def stopped(folder: Path) -> Path:
    """A run with a checkpoint of step 2."""
    assert train(folder) == 0
    with checkpoint.writing(folder / "r" / "checkpoints", 2, keep=2) as scratch:
        (scratch / "weights").write_text("w")
    return folder / "r"


def test_a_run_of_a_name_that_is_taken_gets_a_number(starts, tmp_path: Path) -> None:
    names: list[str] = []
    starts(lambda config, folder: names.append(f"{config.name} in {folder.name}") or 0)
    assert train(tmp_path) == train(tmp_path) == train(tmp_path) == 0
    assert names == ["r in r", "r-2 in r-2", "r-3 in r-3"]
    assert load(tmp_path / "r-2" / "config.yaml").name == "r-2"


def test_nobody_resumes_a_run_that_goes_on(starts, tmp_path: Path, capsys) -> None:
    starts(lambda config, folder: 0)
    folder, codes = stopped(tmp_path), list[int]()
    starts(lambda config, folder: codes.append(cli.main(["train", "--resume", str(folder)])) or 0)
    assert cli.main(["train", "--resume", str(folder)]) == 0
    assert codes == [2] and "another process trains in" in capsys.readouterr().err


def test_a_resume_that_is_refused_leaves_the_configuration_as_it_was(starts, tmp_path: Path) -> None:
    starts(lambda config, folder: 0)
    folder = stopped(tmp_path)
    before = (folder / "config.yaml").read_text()

    def refuse(config: Config, folder: Path) -> int:
        raise ValueError("resume with the saved one")

    starts(refuse)
    assert cli.main(["train", "--resume", str(folder), "seed=9"]) == 1
    assert (folder / "config.yaml").read_text() == before
    assert "resume with the saved one" in (folder / "failure.txt").read_text()


def test_a_run_that_was_moved_goes_on_where_it_is(starts, tmp_path: Path) -> None:
    starts(lambda config, folder: 0)
    moved = stopped(tmp_path).rename(tmp_path / "moved")
    seen: list[tuple[str, str]] = []
    starts(lambda config, folder: seen.append((config.name, config.cluster.runs)) or 0)
    assert cli.main(["train", "--resume", str(moved)]) == 0
    assert seen == [("moved", str(tmp_path))]


def test_publications_that_a_killed_run_left_are_gone_before_it_goes_on(starts, tmp_path: Path) -> None:
    starts(lambda config, folder: 0)
    shared = f"cluster.weights={tmp_path}/shared"
    assert train(tmp_path, shared) == 0
    left = Path(weights_folder(load(tmp_path / "r" / "config.yaml"))) / "v000003"
    left.mkdir(parents=True)
    found: list[bool] = []
    starts(lambda config, folder: found.append(left.exists()) or 0)
    with checkpoint.writing(tmp_path / "r" / "checkpoints", 2, keep=2) as scratch:
        (scratch / "weights").write_text("w")
    assert cli.main(["train", "--resume", str(tmp_path / "r")]) == 0
    assert found == [False]
