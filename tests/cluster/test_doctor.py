"""What the doctor finds, with a tiny model folder: no engine, no learner."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cluster import cli
from learner.config import LearnerConfig
from learner.estimate import GIB, learner_gb, shape

ROOT = Path(__file__).parents[2]
SIZES = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "num_hidden_layers": 3}


@pytest.fixture
def folder(byte_folder: str, tmp_path: Path) -> Path:
    model = tmp_path / "model"
    shutil.copytree(byte_folder, model)
    (model / "config.json").write_text(json.dumps(SIZES))
    save_file({"a": np.zeros((100, 64), np.float32), "b": np.zeros(600, np.float16)}, model / "model.safetensors")
    return model


def doctor(folder: Path, experiment: str, *overrides: str) -> int:
    return cli.main(["doctor", str(ROOT / "deploy/experiments" / experiment), f"actors.model={folder}", *overrides])


@pytest.mark.parametrize("experiment", ["bfcl/qwen2.5-7b.yaml", "bfcl/toolrl.yaml", "bfcl/llama-3.1-8b.yaml"])
def test_a_sound_config_is_told_to_be_so(experiment: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(folder, experiment) == 0
    told = capsys.readouterr().out
    assert "BAD" not in told and "level base: 100 train, 25 validation, 75 test" in told and "append-only" in told
    assert "20 of 20 tasks" in told and "0 M parameters" in told


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("actors.engine.max_model_len=4096", "raise actors.engine.max_model_len"),
        ("actors.model=/nowhere/else", "/nowhere/else has no config.json"),
    ],
)
def test_what_would_spoil_the_run_is_bad(override: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(folder, "bfcl/qwen2.5-7b.yaml", override) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    assert len(bad) == 1 and told in bad[0]


def test_a_template_that_forgets_is_bad(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = folder / "chat_template.jinja"
    template.write_text(
        template.read_text().replace(
            "message.role + '\\n' + message.content", "message.role + '\\n' + (message.content if loop.last else '')"
        )
    )
    assert doctor(folder, "bfcl/qwen2.5-7b.yaml") == 1
    assert "BAD  template" in capsys.readouterr().out


def test_a_wrong_key_and_a_wrong_level_end_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(folder, "bfcl/qwen2.5-7b.yaml", "learner.klx=1") == 2
    assert doctor(folder, "bfcl/direct.yaml", "curriculum.stages.0.levels={hard: 1.0}") == 2
    assert "'hard'" in capsys.readouterr().err


def test_memory_is_estimated_by_part(folder: Path) -> None:
    size = shape(folder)
    assert (size.parameters, size.layers, size.hidden, size.kv_per_token) == (7000, 3, 64, 2 * 3 * 2 * 16 * 2)
    parts = learner_gb(size, LearnerConfig(num_ranks=2, zero_stage=3, kl=0.1, max_tokens=10))
    assert parts == {
        "weights": 7000 / GIB, "gradients": 14000 / GIB, "optimizer": 42000 / GIB, "activations": 10 * 3 * 64 * 34 / GIB,
        "reference": 14000 / GIB,
    }  # fmt: skip


def test_what_does_not_fit_a_gpu_is_bad(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ROOT / "deploy/experiments/bfcl/qwen2.5-7b.yaml")
    assert cli.main(["doctor", path, f"actors.model={folder}", "--gpu-gb", "0.001"]) == 1
    assert "raise learner.num_ranks" in capsys.readouterr().out
