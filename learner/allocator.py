"""Memory between updates: kept for the next one, but not for ever."""

from __future__ import annotations

import ctypes

import psutil

MOST = 1.15  # of what the first update after giving pages back left resident
EVERY_ARENA = b"arena.4096.purge"


class Pages:
    """For a process whose jemalloc is told never to purge.

    A page given back is faulted and zeroed anew for the next tensor, which can take a third of an update; but tensors of
    ever new sizes leave gaps, and what is kept would grow without end.
    """

    def __init__(self) -> None:
        self._process, self._first = psutil.Process(), 0

    def tidy(self) -> bool:
        """Call between updates; whether free pages went back to the system. Nothing where another allocator serves."""
        resident = self._process.memory_info().rss
        self._first = self._first or resident
        if resident <= MOST * self._first:
            return False
        self._first = 0
        return _purge()


def _purge() -> bool:
    try:
        mallctl = ctypes.CDLL(None).mallctl
    except AttributeError:
        return False
    return mallctl(EVERY_ARENA, None, None, None, ctypes.c_size_t(0)) == 0
