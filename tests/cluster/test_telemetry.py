"""Events reach every sink, a resumed run repeats no step, and no sink ends the run."""

from __future__ import annotations

import json
import logging
import math
import re
import urllib.request
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.metrics import LevelResult, MetricsFile, Note, StepReport, Validation, read_history
from cluster.telemetry import Prometheus, Telemetry, TelemetryConfig, metric_name
from cluster.waits import Waits

QUIET = TelemetryConfig(console=False, tensorboard=False, prometheus=False)
DEPLOY = Path(__file__).parents[2] / "deploy"
KEYS = ("rewards/mean", "rewards/success", "actors/tokens_per_s", "actors/hints", "actors/turns", "buffer/lag",
        "buffer/filtered", "buffer/stale", "learner/loss", "learner/grad_norm", "actors/entropy",
        "learner/logprob_gap", "learner/tokens_per_s", "cluster/engine_s", "cluster/passes_s",
        "cluster/publish_s")  # fmt: skip


def step(number: int, reward: float = 0.5, **more: float) -> StepReport:
    return StepReport(number, 100, number, "basics", "first", 30.0, {"rewards/mean": reward} | more)


def levels(success: float) -> dict[str, LevelResult]:
    return {"1": LevelResult(success, 0.5, 20)}


class Broken:
    """A sink whose disk is full."""

    def __init__(self) -> None:
        self.calls = 0

    def step(self, report: StepReport) -> None:
        self.calls += 1
        raise OSError("no space left")

    def validation(self, report: Validation) -> None:
        self.calls += 1

    def note(self, text: str) -> None:
        self.calls += 1

    def close(self) -> None:
        raise OSError("still no space left")


def test_metrics_come_back_as_they_went(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, QUIET, total_steps=100)
    telemetry.validation(0, "basics", levels(0.2))
    telemetry.step(step(1))
    telemetry.note("checkpoint\u2028after 1")
    telemetry.close()
    history = read_history(tmp_path)
    assert history.steps == (step(1),)
    assert history.validations == (Validation(0, "basics", levels(0.2)),)
    assert history.notes == (Note(1, "checkpoint\u2028after 1"),)


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, resumed_from=0)
    metrics.step(step(1, reward=math.inf))
    metrics.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["metrics"] == {"rewards/mean": None}
    assert math.isnan(read_history(tmp_path).steps[0].metrics["rewards/mean"])


def test_every_line_is_on_file_at_once(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, resumed_from=0)
    metrics.step(step(1))
    assert len(read_history(tmp_path).steps) == 1
    metrics.close()


@given(done=st.integers(1, 12), resumed_from=st.integers(0, 12), more=st.integers(0, 6), torn=st.booleans())
def test_a_resumed_run_has_each_step_once(
    tmp_path_factory: pytest.TempPathFactory, done: int, resumed_from: int, more: int, torn: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    first = MetricsFile(folder, resumed_from=0)
    for number in range(1, done + 1):
        first.step(step(number, reward=0.0))
        first.validation(Validation(number, "basics", levels(0.0)))
    first.note("engine-0 died")
    first.close()
    if torn:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "step", "step": 3, "metr')
    resumed_from = min(resumed_from, done)
    second = MetricsFile(folder, resumed_from=resumed_from)
    for number in range(resumed_from + 1, resumed_from + more + 1):
        second.step(step(number, reward=1.0))
    second.close()
    history = read_history(folder)
    assert [it.step for it in history.steps] == list(range(1, resumed_from + more + 1))
    assert [it.metrics["rewards/mean"] for it in history.steps] == [0.0] * resumed_from + [1.0] * more
    assert [it.step for it in history.validations] == list(range(1, resumed_from + 1))
    assert [it.text for it in history.notes] == ["engine-0 died"]
    assert history.num_unread == 0


def test_reading_takes_the_last_line_of_a_step_and_counts_what_it_cannot_read(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, resumed_from=0)
    metrics.step(step(1, reward=0.1))
    metrics.step(step(1, reward=0.9))
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[1]\nnull\n{"kind": "step", "step": "x"}\n{"kind": "other", "step": 1}\n{"ki')
    history = read_history(tmp_path)
    assert [it.metrics["rewards/mean"] for it in history.steps] == [0.9]
    assert history.num_unread == 5


def test_a_failing_sink_is_told_of_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    telemetry = Telemetry(tmp_path, QUIET, total_steps=100, sinks=(broken,))
    with caplog.at_level(logging.WARNING):
        telemetry.step(step(1))
        telemetry.step(step(2))
        telemetry.validation(2, "basics", levels(0.1))
    telemetry.close()
    assert broken.calls == 1
    assert [record.message for record in caplog.records] == [
        "telemetry sink Broken failed and is closed: OSError('no space left')"
    ]
    history = read_history(tmp_path)
    assert [it.step for it in history.steps] == [1, 2]
    assert len(history.notes) == 1


def test_a_taken_port_leaves_prometheus_out_and_the_run_goes_on(tmp_path: Path) -> None:
    first = Prometheus(tmp_path, Waits(), host="127.0.0.1", port=0)
    config = TelemetryConfig(console=False, tensorboard=False, prometheus_port=first.server.server_port)
    telemetry = Telemetry(tmp_path / "second", config, total_steps=100)
    telemetry.step(step(1))
    telemetry.close()
    first.close()
    history = read_history(tmp_path / "second")
    assert len(history.steps) == 1
    assert "could not start" in history.notes[0].text


def scrape(address: str) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows}


def test_prometheus_answers_on_loopback_with_the_latest_values(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, TelemetryConfig(console=False, tensorboard=False), total_steps=100)
    [target] = json.loads((tmp_path / "prometheus.json").read_text())
    [address] = target["targets"]
    assert address.startswith("127.0.0.1:") and target["labels"] == {"job": "tiltyard", "run": tmp_path.name}
    before = scrape(address)
    telemetry.step(step(1, reward=0.1))
    telemetry.step(step(2, reward=0.75))
    telemetry.validation(2, "basics", levels(0.4))
    telemetry.waiting("learner", "groups 5/8")
    values = scrape(address)
    telemetry.close()
    assert values["tiltyard_rewards_mean"] == 0.75
    assert values["tiltyard_step"] == 2
    assert values['tiltyard_validation_success{level="1"}'] == 0.4
    assert values['tiltyard_stage_info{stage="basics"}'] == 1
    assert values['tiltyard_waiting_seconds{part="learner"}'] >= 0
    name = "tiltyard_heartbeat_timestamp_seconds"
    assert values[name] >= before[name] > 1.7e9
    assert not (tmp_path / "prometheus.json").exists()
    with pytest.raises(OSError):
        scrape(address)


def test_a_sink_of_tensorboard_reads_back_without_the_steps_that_a_resume_repeats(tmp_path: Path) -> None:
    config = TelemetryConfig(console=False, prometheus=False)
    for resumed_from, reward in ((0, 0.25), (2, 0.75)):
        telemetry = Telemetry(tmp_path, config, total_steps=100, resumed_from=resumed_from)
        for number in range(resumed_from + 1, resumed_from + 4):
            telemetry.step(step(number, reward=reward))
        telemetry.validation(resumed_from, "basics", levels(0.5))
        telemetry.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(it.step, it.value) for it in events.Scalars("rewards/mean")] == [
        (1, 0.25), (2, 0.25), (3, 0.75), (4, 0.75), (5, 0.75)
    ]  # fmt: skip
    assert events.Scalars("validation/success/1")[-1].value == 0.5


def test_outside_a_terminal_the_console_is_one_line_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry(tmp_path, TelemetryConfig(tensorboard=False), total_steps=100)
    telemetry.step(step(1))
    telemetry.close()
    told, line = capsys.readouterr().out.splitlines()
    assert told.startswith("metrics for Prometheus at http://127.0.0.1:")
    assert line.startswith("step 1/100  basics  reward 0.5") and "\x1b" not in line


@pytest.mark.parametrize(("port", "remedy"), [(-1, "is -1: give a port"), (70000, "prometheus=false")])
def test_a_wrong_port_is_refused_with_a_remedy(port: int, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        TelemetryConfig(prometheus_port=port)


def test_an_empty_address_is_refused() -> None:
    with pytest.raises(ValueError, match="give an address to bind"):
        TelemetryConfig(prometheus_host="")


def test_dashboard_and_alerts_ask_for_metrics_that_exist(tmp_path: Path) -> None:
    sink = Prometheus(tmp_path, Waits(), host="127.0.0.1", port=0)
    sink.step(StepReport(1, 2, 1, "basics", "", 1.0, dict.fromkeys(KEYS, 1.0)))
    known = {family.name for family in sink.collect()}
    sink.close()
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    asked = [rule["expr"] for group in groups for rule in group["rules"]]
    panels = json.loads((DEPLOY / "grafana" / "tiltyard.json").read_text())["panels"]
    asked += [target["expr"] for panel in panels for target in panel["targets"]]
    wanted = {name for expr in asked for name in re.findall(r"\btiltyard_\w+", expr)}
    assert len(wanted) > 10
    assert wanted <= known


def test_metric_names_follow_from_the_keys() -> None:
    assert metric_name("rewards/mean") == "tiltyard_rewards_mean"
    assert metric_name("rewards/tool-format.v2") == "tiltyard_rewards_tool_format_v2"
