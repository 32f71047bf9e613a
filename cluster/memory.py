"""How much memory a run takes: the whole process tree's share, sampled."""

from __future__ import annotations

import asyncio

import psutil

GIB = 2**30


class MemoryPeak:
    """`peak_gb` is the largest sum of proportional set sizes seen: shared pages count once."""

    def __init__(self, *, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self.peak_gb = 0.0

    async def watch(self) -> None:
        while True:
            self.peak_gb = max(self.peak_gb, await asyncio.to_thread(tree_gb))
            await asyncio.sleep(self._every_s)


def tree_gb() -> float:
    """Proportional set size of this process and all below it, in GiB."""
    own = psutil.Process()
    return sum(_pss(process) for process in (own, *own.children(recursive=True))) / GIB


def _pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0
