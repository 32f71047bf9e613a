"""Watches a run by its progress rather than by its processes."""

from __future__ import annotations

import asyncio
import faulthandler
import sys
import time
from collections.abc import Callable

from cluster.keeper import Keeper
from cluster.telemetry import Telemetry


class Stalled(RuntimeError):
    """Nothing was finished for too long; the message says who waits on whom."""


async def watch(keeper: Keeper, telemetry: Telemetry, *, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Raise Stalled, with every thread's stack dumped, where `stall_s` seconds pass without progress."""
    while True:
        await asyncio.sleep(min(5.0, stall_s / 4))
        idle = clock() - keeper.progressed
        if idle > stall_s:
            faulthandler.dump_traceback(sys.stderr)
            waits = "; ".join(f"{w.part} waits for {w.what} since {w.seconds:.0f} s" for w in telemetry.waits.now())
            raise Stalled(f"no progress for {idle:.0f} s (cluster.stall_s={stall_s:g}): {waits or 'no part says what for'}")
