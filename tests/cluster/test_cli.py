"""The command as a user types it; what needs no engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import cli
from envs.environment import environment
from envs.truth import references

ROOT = Path(__file__).parents[2]


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'vllm', 'omegaconf'}"
    probe = f"import sys, cluster.cli; cluster.cli.parser(); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrong_key_is_told_and_nothing_is_left_behind(tmp_path: Path, capsys) -> None:
    status = cli.main(["train", str(ROOT / "deploy/experiments/shop.yaml"), "learner.num_stepz=3", f"cluster.runs={tmp_path}"])
    assert status == 2 and "num_steps" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("train {here}", "is a folder; name a YAML file"),
        ("train --resume {here}/nope", "{here}/nope has no config.yaml: name the folder of a run"),
        ("evaluate {here}/nope", "{here}/nope has no config.yaml"),
        ("doctor {here}/binary.yaml", "binary.yaml cannot be read"),
        ("doctor {shop} envs.rules={here}/nope.yaml", "envs.rules: {here}/nope.yaml: cannot be read"),
        ("train {shop} envs.rules={here}/binary.yaml cluster.runs={here}/r", "envs.rules: {here}/binary.yaml: cannot be read"),
        ("construct --out {here}/c --parallel 0", "--parallel is 0; it must be at least 1"),
        ("construct --out {here}/c --count -3", "--count is -3; it must be at least 1"),
        ("construct --out {here}/empty", "{here}/empty, which is a file; name a folder"),
        ("construct --out {here}/c --author http://x --model m --questions {here}/empty", "{here}/empty has no question"),
        ("experts shop --import {here}/empty --out {here}/x.parquet", "{here}/empty has no line; each must be like"),
        ("experts shop --import {here}/binary.yaml --out {here}/x.parquet", "binary.yaml cannot be read"),
        ("experts shop --out {here}/empty/x.parquet", "{here}/empty"),
        ("submit {shop} --address 127.0.0.1:9", "write it with http://"),
        ("score shopp {here}/empty", "tiltyard: no environment is called 'shopp'"),
    ],
)
def test_likely_mistakes_are_told_before_anything_starts(tmp_path: Path, capsys, command: str, told: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    names = {"here": tmp_path, "shop": ROOT / "deploy/experiments/shop.yaml"}
    assert cli.main(command.format(**names).split()) == 2
    assert told.format(**names) in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["binary.yaml", "empty"]


def test_resume_of_nothing_is_told(tmp_path: Path, capsys) -> None:
    assert cli.main(["train", "--resume", str(tmp_path)]) == 2
    assert "config.yaml" in capsys.readouterr().err


def test_recorded_calls_are_scored(tmp_path: Path, capsys) -> None:
    task = environment("shop").taskset("test", "2")[0]
    turns = [[{"name": c.name, "arguments": dict(c.arguments)} for c in reference.calls] for reference in references(task)]
    recorded = [{"task_id": task.id, "turns": turns}, {"task_id": task.id, "turns": [[] for _ in turns]}]
    file = tmp_path / "calls.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in recorded))
    assert cli.main(["score", "shop", str(file)]) == 0
    right, idle = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert right["success"] and not idle["success"] and idle["reward"] < right["reward"] == 1.0


def test_a_bad_recording_names_the_line(tmp_path: Path, capsys) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text("{}\n")
    assert cli.main(["score", "shop", str(file)]) == 2
    assert "line 1" in capsys.readouterr().err
