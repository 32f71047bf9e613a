"""Where things start: the same class as a local object or as a Ray actor, and the same `await` on either."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import ray
from ray.actor import ActorHandle

from actors.desk import Caller, Served
from actors.engine import Engine

T = TypeVar("T")
# OpenMP threads that wait must soon sleep: spinning, an engine and a learner on the same cores take each other's time.
# GNU's, which PyTorch brings, spin briefly first, since kernels are many and small.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}
# For a process that has the cores to itself while it works.
EAGER_THREADS = {"GOMP_SPINCOUNT": "200000"}

JEMALLOC = "narenas:1,oversize_threshold:0,dirty_decay_ms:-1"  # one arena, large pieces in it too, never purged


def lean_memory() -> dict[str, str]:
    """Variables for a process of large tensors: jemalloc, which Ray ships, holds less than glibc's allocator would.

    It keeps what is freed until the process gives it back (`learner.allocator`).
    """
    library = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    preload = {"LD_PRELOAD": os.environ.get("LD_PRELOAD", str(library)), "MALLOC_CONF": JEMALLOC}
    return preload if library.is_file() else {}


def computing(*, takes_turns: bool) -> dict[str, str]:
    """Variables for an engine or a learner; where they take turns, each has the cores to itself while it works."""
    return lean_memory() | (EAGER_THREADS if takes_turns else {})


@dataclass(frozen=True, slots=True)
class Resources:
    """What Ray reserves for an actor, and the environment variables that its process starts with."""

    cpus: float = 0.0
    gpus: float = 0.0
    variables: Mapping[str, str] = field(default_factory=dict)


class Spawn(Protocol):
    """Starts `make` (a class with its arguments, as a partial) under a name that tells a person what it is."""

    def __call__(self, make: Callable[[], T], name: str, *, resources: Resources = Resources()) -> T: ...

    def caller(self, engine: Served) -> Engine:
        """What another part uses to call an engine that was started here."""
        ...

    def kill(self, thing: object) -> None:
        """End it at once, whatever it does."""
        ...


class Proxy:
    """Attribute access gives the actor's method; an ObjectRef is awaitable, so callers need not know."""

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._handle, name).remote


class RaySpawn:
    """Every thing is a Ray actor, in a process of its own."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, make: Callable[[], T], name: str, *, resources: Resources = Resources()) -> T:
        call = make if isinstance(make, partial) else partial(make)
        actor = ray.remote(call.func).options(
            name=f"{self._prefix}/{name}",
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            runtime_env={"env_vars": {**QUIET_THREADS, **resources.variables}},
            max_concurrency=4096,
        )
        return Proxy(actor.remote(*call.args, **call.keywords))  # type: ignore[return-value]

    def caller(self, engine: Served) -> Engine:
        return Caller(engine)

    def kill(self, thing: object) -> None:
        if isinstance(thing, Proxy):
            ray.kill(thing._handle)


class LocalSpawn:
    """Everything in this process: for a debugger, a laptop and tests."""

    def __call__(self, make: Callable[[], T], name: str, *, resources: Resources = Resources()) -> T:
        return make()

    def caller(self, engine: Served) -> Engine:
        return engine

    def kill(self, thing: object) -> None:
        return None
