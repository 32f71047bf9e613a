"""The real thing, small: vLLM, DeepSpeed on two ranks and Ray train SmolLM2 by the command line, stop and go on, run as a job."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.ledger import Ledger
from cluster.store import read

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SMALL = [
    "learner.groups_per_batch=2",
    "learner.max_lag=0",  # the log-probability gap is then the numerics' alone, not the weights' age
    "learner.max_refills=2",
    "learner.checkpoint_every=1",
    "actors.max_open_groups=2",
    "actors.engine.kv_cache_gb=0.5",
    "cluster.num_test_tasks=2",
    "cluster.min_memory_gb=4",
    "curriculum.validation.num_tasks=1",
    "curriculum.validation.every_steps=2",
    'curriculum.stages=[{name: easy, levels: {"1": 1.0}, augmentation: 1.0, group_size: 4}]',
]


def tiltyard(*arguments: str, env: dict[str, str] | None = None, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "tiltyard"), *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    overrides = [
        *SMALL,
        f"cluster.runs={runs}",
        "name=small",
        "learner.num_steps=2",
        "learner.num_ranks=2",
        "learner.zero_stage=2",
    ]
    done = tiltyard("train", "deploy/experiments/shop.yaml", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs / "small"


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["metrics"] | {"step": line["step"]} for line in lines if "metrics" in line]


def test_a_run_trains_and_tells(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert set(summary["levels"]) == {"1", "2", "3"} and summary["wall_s"] > 0 and summary["peak_memory_gb"] > 1
    assert [line["step"] for line in metrics(trained)] == [1, 2]
    assert (trained / "report.html").stat().st_size > 10_000
    assert Ledger(trained / "ledger.jsonl").counts.is_balanced
    rows = read(trained, split="train").to_pylist()
    assert rows and all(len(row["tokens"]) == len(row["logprobs"]) for row in rows)
    assert {version for row in rows for version in row["versions"]} <= {-1, 0, 1}


def test_engine_and_learner_agree_on_log_probabilities(trained: Path) -> None:
    gaps = [line["learner/logprob_gap"] for line in metrics(trained) if "learner/logprob_gap" in line]
    assert gaps and max(gaps) < 0.05


def test_the_trained_model_is_an_ordinary_folder(trained: Path) -> None:
    done = tiltyard("evaluate", str(trained), "cluster.num_test_tasks=2")
    assert done.returncode == 0, done.stderr
    levels = json.loads(done.stdout[done.stdout.index("{") :])
    assert levels["1"]["num_tasks"] == 2


def test_it_resumes_where_it_ended(trained: Path) -> None:
    done = tiltyard("train", "--resume", str(trained), "learner.num_steps=3", "cluster.num_test_tasks=0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["step"] for line in metrics(trained)] == [1, 2, 3]
    assert Ledger(trained / "ledger.jsonl").counts.is_balanced


def test_the_same_config_in_one_process(tmp_path: Path) -> None:
    overrides = [*SMALL, f"cluster.runs={tmp_path}", "name=local", "learner.num_steps=1", "cluster.num_test_tasks=0"]
    done = tiltyard("train", "deploy/experiments/shop.yaml", *overrides, "cluster.spawn=local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["step"] for line in metrics(tmp_path / "local")] == [1]


def test_ctrl_c_stops_with_a_checkpoint(tmp_path: Path) -> None:
    overrides = [*SMALL, f"cluster.runs={tmp_path}", "name=stopped", "learner.num_steps=50", "cluster.num_test_tasks=0"]
    command = [str(BIN / "tiltyard"), "train", "deploy/experiments/shop.yaml", *overrides]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    run, begun = tmp_path / "stopped", time.monotonic()
    while not (run / "metrics.jsonl").exists() or not metrics(run):
        assert process.poll() is None and time.monotonic() - begun < 300
        time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0 and "go on with: tiltyard train --resume" in output
    assert list((run / "checkpoints").glob("step-*/manifest.json"))


def test_a_job_on_a_head_with_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a" * 64)
    token.chmod(0o600)
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    full = {**os.environ, **env}
    start = [str(BIN / "ray"), "start", "--head", "--port", "6399", "--dashboard-port", "8299", "--num-cpus", "2"]
    try:
        subprocess.run([*start, "--temp-dir", "/tmp/tiltyard-ray"], env=full, check=True, capture_output=True, timeout=120)
        overrides = [*SMALL, f"cluster.runs={tmp_path}", "name=job", "learner.num_steps=1", "cluster.num_test_tasks=0"]
        address = ["--address", "http://127.0.0.1:8299"]
        refused = tiltyard("submit", "deploy/experiments/shop.yaml", *address, env={"RAY_AUTH_MODE": "disabled"})
        assert refused.returncode == 2 and "wants a token" in refused.stderr
        done = tiltyard("submit", "deploy/experiments/shop.yaml", *overrides, *address, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "job" / "summary.json").exists()
    finally:
        subprocess.run([str(BIN / "ray"), "stop", "--force"], env=full, capture_output=True, timeout=60)
