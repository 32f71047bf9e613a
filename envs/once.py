"""What is made at the first call and kept, as by functools.cache, but once: threads that ask at the same time wait for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Once(Generic[P, T]):
    """A function whose arguments are hashable."""

    def __init__(self, make: Callable[P, T]) -> None:
        self._lock, self._made = RLock(), cache(make)
        self.__doc__ = make.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            return self._made(*args, **kwargs)

    def forget(self) -> None:
        self._made.cache_clear()
