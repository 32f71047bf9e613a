"""Runs tool code that somebody else wrote, shut off from files, network, processes, other calls and the answers.

Warm workers (`sandbox_worker.py`); a call is a child of one, which dies with it, and a worker dies with this process, however
that ends. Isolation is chosen by probes at the start, strongest first; where none works it is refused, unless `insecure` is
asked for.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from envs.types import Json

WORKER = Path(__file__).with_name("sandbox_worker.py")
TIMEOUT = -1000  # the worker's status of a call that took too long
GRACE_S = 5.0  # that a worker has beyond a call's time
ISOLATIONS = (("namespaces", "landlock", "seccomp"), ("landlock", "seccomp"))  # strongest first
# Each has to come to an error before a sandbox is trusted.
PROBES = (
    "open('/etc/passwd')", "open('/proc/self/environ')", "open('/tmp/tiltyard-probe', 'w')", "__import__('os').listdir('/')",
    "__import__('os').fork()", "__import__('socket').socket()", "__import__('os').kill(1, 0)",
)  # fmt: skip
log = logging.getLogger(__name__)


class SandboxError(RuntimeError):
    """No isolation works here: the message says what was tried and what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one call."""

    memory_mb: int = 512
    cpu_s: int = 5
    wall_s: float = 10.0
    output_bytes: int = 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave; `error` is empty where it gave a result."""

    result: Json = None
    error: str = ""


class Worker:
    """One warm process. Its calls come one after the other."""

    def __init__(self, isolation: Sequence[str], limits: Limits) -> None:
        self._limits = limits
        self._status, status = os.pipe()
        told = json.dumps({**asdict(limits), "isolation": list(isolation)})
        command = [sys.executable, "-S", "-s", "-P", str(WORKER), told, str(status)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, pass_fds=(status,), cwd="/", bufsize=0,
            env={"PYTHONHASHSEED": "0"},
        )  # fmt: skip
        os.close(status)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, request: bytes) -> Answer:
        """Raises OSError where the worker is no longer of use."""
        body, status = self._exchange(request)
        limits = self._limits
        if status == TIMEOUT:
            return Answer(error=f"took more than {limits.wall_s:g} s")
        if status < 0:
            why = f"more than {limits.memory_mb} MB or {limits.cpu_s} s of CPU time, most likely"
            return Answer(error=f"killed by {signal.Signals(-status).name}: {why}")
        try:
            told = json.loads(body, parse_constant=_refuse)
            json.dumps(told, ensure_ascii=False).encode()  # no half of a surrogate pair
        except (ValueError, RecursionError):
            return Answer(error="ended without an answer that could be read")
        answer = cast(dict[str, Json], told) if isinstance(told, dict) else {}
        return Answer(answer.get("result"), str(answer.get("error", "")))

    def _exchange(self, request: bytes) -> tuple[bytes, int]:
        """What the call wrote, and how it ended. Raises OSError where that cannot be known, and where it wrote too much."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        message = memoryview(struct.pack("I", len(request)) + request)
        while message:
            message = message[stdin.write(message) :]
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        poll.register(self._status, select.POLLIN)
        end, body = time.monotonic() + self._limits.wall_s + GRACE_S, bytearray()
        while True:
            ready = dict(poll.poll(max(0.0, end - time.monotonic()) * 1000))
            if stdout.fileno() in ready:  # read before the status is looked at: whatever was written comes before it
                body += stdout.read(65536) or b""
                if len(body) > self._limits.output_bytes:
                    raise OSError(f"gave more than {self._limits.output_bytes} bytes")
            elif self._status in ready:
                status = os.read(self._status, 4)
                if len(status) == 4:
                    return bytes(body), struct.unpack("i", status)[0]
            if not ready or not self.is_alive:
                raise OSError("the sandbox ended with the call")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._status)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Sandbox:
    """A pool of warm workers, safe to call from many threads."""

    def __init__(self, *, workers: int = 1, limits: Limits = Limits(), insecure: bool = False) -> None:
        """Raises SandboxError where no isolation works; with `insecure` there is none but the limits."""
        self.isolation = () if insecure else choose(limits)
        self._limits = limits
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        self._num_workers = workers
        for _ in range(workers):
            self._idle.put(Worker(self.isolation, limits))
        log.info("tool code runs in %d workers behind %s", workers, " + ".join(self.isolation) or "nothing (insecure)")

    def call(self, code: str, name: str, arguments: Mapping[str, Json]) -> Answer:
        """The tool `name` of this code, called with these arguments."""
        return self._run({"code": code, "name": name, "arguments": dict(arguments)})

    def defines(self, code: str, name: str) -> Answer:
        """Whether the code runs and defines a tool of that name, or the error."""
        return self._run({"code": code, "name": name, "arguments": None})

    def _run(self, request: dict[str, Json]) -> Answer:
        body = json.dumps(request).encode()
        worker = self._idle.get()
        try:
            if not worker.is_alive:  # killed between two calls: not this one's doing
                worker = self._anew(worker)
            return worker.call(body)
        except OSError as error:
            worker = self._anew(worker)
            return Answer(error=str(error))
        finally:
            self._idle.put(worker)

    def _anew(self, worker: Worker) -> Worker:
        worker.close()
        return Worker(self.isolation, self._limits)

    def close(self) -> None:
        for _ in range(self._num_workers):
            self._idle.get().close()


def choose(limits: Limits) -> tuple[str, ...]:
    """The strongest isolation that starts here and refuses every probe. Raises SandboxError."""
    tried: list[str] = []
    for isolation in ISOLATIONS:
        name, worker = " + ".join(isolation), Worker(isolation, limits)
        try:
            works = worker.call(_probe("1 + 1"))
            passed = [probe for probe in PROBES if not worker.call(_probe(probe)).error]
        except OSError as error:
            tried.append(f"{name}: {error}")
            continue
        finally:
            worker.close()
        if works.result == "2" and not passed:
            return isolation
        tried.append(f"{name}: {works.error or f'lets {passed[0]} through'}")
    raise SandboxError(
        f"no isolation works here ({'; '.join(tried)}); tools that somebody else wrote need Linux 5.13 or later with Landlock "
        "and seccomp, or, where all of it is trusted, --insecure (for training the variable TILTYARD_INSECURE=1)"
    )


def _probe(expression: str) -> bytes:
    return json.dumps({"code": f"def probe():\n    return str({expression})\n", "name": "probe", "arguments": {}}).encode()


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is not JSON")
