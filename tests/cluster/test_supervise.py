"""A run that makes no progress says who waits on whom."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.supervise import Stalled, watch
from cluster.telemetry import Telemetry, TelemetryConfig


@dataclass
class Progress:
    progressed: float = 0.0


async def test_no_progress_ends_with_the_waits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = TelemetryConfig(console=False, tensorboard=False, prometheus=False)
    telemetry = Telemetry(tmp_path, config, total_steps=1)
    telemetry.waiting("learner", "groups 5/8")
    with pytest.raises(Stalled, match="learner waits for groups 5/8"):
        await asyncio.wait_for(watch(Progress(), telemetry, stall_s=0.2, clock=lambda: 1.0), 5)
    assert "most recent call first" in capfd.readouterr().err


async def test_progress_is_left_alone(tmp_path: Path) -> None:
    config = TelemetryConfig(console=False, tensorboard=False, prometheus=False)
    telemetry = Telemetry(tmp_path, config, total_steps=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch(Progress(1.0), telemetry, stall_s=0.2, clock=lambda: 1.1), 0.5)
