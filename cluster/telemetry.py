"""Where a run tells what it does: one call, many sinks, none of which can end the run."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]  (made at import)
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from cluster.console import LiveConsole, PlainConsole
from cluster.metrics import LevelResult, MetricsFile, StepReport, Validation, read_history
from cluster.waits import Waits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TelemetryConfig:
    """Which sinks a run has; metrics.jsonl is always kept. Port 0 takes any free port."""

    console: bool = True
    tensorboard: bool = True
    prometheus: bool = True
    prometheus_host: str = "127.0.0.1"
    prometheus_port: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.prometheus_port <= 65535:
            raise ValueError(
                f"telemetry.prometheus_port is {self.prometheus_port}: give a port from 1 to 65535, 0 for any free "
                "one, or set telemetry.prometheus=false"
            )
        if not self.prometheus_host:
            raise ValueError("telemetry.prometheus_host is '': give an address to bind, such as 127.0.0.1")


class Sink(Protocol):
    def step(self, report: StepReport) -> None: ...

    def validation(self, report: Validation) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Telemetry:
    """Hands every event to every sink. A sink that raises is told of once, closed and left out."""

    def __init__(
        self,
        folder: Path,
        config: TelemetryConfig,
        *,
        total_steps: int,
        resumed_from: int = 0,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """`resumed_from` is the checkpoint's step: what an earlier process reported after it is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self.waits = Waits()
        self.sinks: list[Sink] = list(sinks)
        self._open(lambda: MetricsFile(folder, resumed_from=resumed_from))
        if config.console:
            self._open(lambda: _console(folder, self.waits, total_steps=total_steps))
        if config.tensorboard:
            self._open(lambda: TensorBoard(folder / "tensorboard", resumed_from=resumed_from))
        if config.prometheus:
            self._open(lambda: self._prometheus(folder, config))

    def step(self, report: StepReport) -> None:
        self._tell(lambda sink: sink.step(report))

    def validation(self, step: int, stage: str, levels: Mapping[str, LevelResult]) -> None:
        self._tell(lambda sink: sink.validation(Validation(step, stage, levels)))

    def waiting(self, part: str, what: str) -> None:
        """Say what a part waits for; an empty `what` says that it no longer waits."""
        self.waits.set(part, what)

    def note(self, text: str) -> None:
        self._tell(lambda sink: sink.note(text))

    def close(self) -> None:
        self._tell(lambda sink: sink.close())
        self.sinks.clear()

    def _prometheus(self, folder: Path, config: TelemetryConfig) -> Prometheus:
        sink = Prometheus(folder, self.waits, host=config.prometheus_host, port=config.prometheus_port)
        self.note(f"metrics for Prometheus at http://{sink.address}/metrics")
        return sink

    def _open(self, make: Callable[[], Sink]) -> None:
        try:
            self.sinks.append(make())
        except Exception as error:  # a taken port or a full disk must not end the run
            self._report(f"a telemetry sink could not start and is left out: {error!r}")

    def _tell(self, act: Callable[[Sink], None]) -> None:
        for sink in tuple(self.sinks):
            try:
                act(sink)
            except Exception as error:  # whatever a sink does, training goes on
                self._drop(sink, error)

    def _drop(self, sink: Sink, error: Exception) -> None:
        if sink not in self.sinks:
            return
        self.sinks.remove(sink)
        try:
            sink.close()
        except Exception as second:
            log.debug("closing %s failed too: %r", type(sink).__name__, second)
        self._report(f"telemetry sink {type(sink).__name__} failed and is closed: {error!r}")

    def _report(self, text: str) -> None:
        log.warning(text)
        self.note(text)


class TensorBoard:
    """Scalars as TensorBoard event files, under the same keys as everywhere else."""

    def __init__(self, folder: Path, *, resumed_from: int) -> None:
        self.writer = EventFileWriter(str(folder))
        # TensorBoard hides what earlier files hold from this step on.
        self.writer.add_event(Event(step=resumed_from + 1, session_log=SessionLog(status=SessionLog.START)))

    def step(self, report: StepReport) -> None:
        self._write(report.step, {**report.metrics, "cluster/seconds": report.seconds})

    def validation(self, report: Validation) -> None:
        successes = {f"validation/success/{level}": result.success for level, result in report.levels.items()}
        rewards = {f"validation/reward/{level}": result.reward for level, result in report.levels.items()}
        self._write(report.step, successes | rewards)

    def note(self, text: str) -> None:
        """TensorBoard has scalars only; notes are in metrics.jsonl."""

    def close(self) -> None:
        self.writer.close()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=key, simple_value=value) for key, value in values.items()]
        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
        self.writer.flush()


class Prometheus:
    """The latest values at /metrics, and the address in prometheus.json for Prometheus' file_sd while the run lives."""

    def __init__(self, folder: Path, waits: Waits, *, host: str, port: int) -> None:
        self.waits = waits
        self.values: Mapping[str, float] = {}
        self.levels: Mapping[str, LevelResult] = {}
        self.stage = ""
        self.heartbeat = time.time()
        registry = CollectorRegistry()
        registry.register(self)
        self.server, self.thread = start_http_server(port, host, registry)
        self.address = f"{host}:{self.server.server_port}"
        self.file = folder / "prometheus.json"
        draft = self.file.with_suffix(".tmp")
        draft.write_text(json.dumps([{"targets": [self.address], "labels": {"job": "tiltyard", "run": folder.name}}]))
        os.replace(draft, self.file)

    def step(self, report: StepReport) -> None:
        counts = {"step": report.step, "num_steps": report.num_steps, "version": report.version}
        values = {**report.metrics, **counts, "step_seconds": report.seconds}
        # Replaced whole, never changed: a scrape reads from another thread.
        self.values = {metric_name(key): value for key, value in values.items()}
        self.stage = report.stage
        self.heartbeat = time.time()

    def validation(self, report: Validation) -> None:
        self.levels = dict(report.levels)
        self.heartbeat = time.time()

    def note(self, text: str) -> None:
        """Prometheus has numbers only; notes are in metrics.jsonl."""

    def close(self) -> None:
        self.file.unlink(missing_ok=True)
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        yield _family("heartbeat_timestamp_seconds", "when the run last made progress", value=self.heartbeat)
        for name, value in self.values.items():
            yield GaugeMetricFamily(name, "of the latest step", value=value)
        yield _family("stage_info", "the stage the run is in", label="stage", rows={self.stage: 1.0})
        levels = self.levels
        successes = {level: result.success for level, result in levels.items()}
        yield _family("validation_success", "share of tasks solved", label="level", rows=successes)
        rewards = {level: result.reward for level, result in levels.items()}
        yield _family("validation_reward", "mean reward", label="level", rows=rewards)
        waits = {wait.part: wait.seconds for wait in self.waits.now()}
        yield _family("waiting_seconds", "for how long a part has waited for the same thing", label="part", rows=waits)


def metric_name(key: str) -> str:
    """The name in Prometheus of a metric key: rewards/mean is tiltyard_rewards_mean."""
    return "tiltyard_" + re.sub(r"[^a-zA-Z0-9_]", "_", key)


def _family(
    name: str, text: str, *, value: float | None = None, label: str = "", rows: Mapping[str, float] | None = None
) -> GaugeMetricFamily:
    if rows is None:
        return GaugeMetricFamily(metric_name(name), text, value=value)
    family = GaugeMetricFamily(metric_name(name), text, labels=[label])
    for key, number in rows.items():
        family.add_metric([key], number)
    return family


def _console(folder: Path, waits: Waits, *, total_steps: int) -> Sink:
    if sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb":
        return LiveConsole(folder.name, read_history(folder), waits=waits, total_steps=total_steps)
    return PlainConsole(sys.stdout, read_history(folder))
