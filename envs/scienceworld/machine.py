"""One Java virtual machine that simulates one world at a time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import Timer
from typing import Protocol, cast

from py4j.java_gateway import GatewayParameters, JavaGateway, find_jar_path
from py4j.protocol import Py4JError, Py4JJavaError
from scienceworld.constants import BASEPATH, JAR_PATH

from envs.types import Json

# "easy" is the package's preset that published agents are trained and measured with (ETO, 2403.02502): doors stand open,
# flower pots water themselves, one can teleport, and wires are there only where a task is about them.
SIMPLIFICATION = "easy"
# The simulator walks sets of objects in the order of their hash codes. Java draws those at random, which puts lists of things
# and numbered choices in another order each time; with one code for all the order is that of insertion, always.
SAME_ORDER = ("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # start sooner and smaller than what Java takes by itself
HEAP_MB = 200  # without a limit the heap grows to gigabytes
OLDEST = 8  # version of Java that the package's classes need
TIMEOUT_S = 120.0  # of one request: the slowest takes some 10 s
LAST_S = 1.0  # in which the process of a machine that failed may end by itself
FOREIGN = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS")
MAX_CHARS = 1000  # of an action that are sent: the simulator's parser takes its time over them all
REMEDY = f"install a Java {OLDEST}+ runtime, such as the package openjdk-17-jre-headless, or set JAVA_HOME"
REFUSALS = {
    "No known action matches that input.": "no known action",
    "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible object referents. ": "no action",
}
BROKEN = "The simulator could not carry that out."


class MachineError(RuntimeError):
    """The machine could not be started, or no longer answers."""


class MachineDied(MachineError):
    """Its process has ended, as when the system wants the memory: another one can do the same."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an action came to; `score` is the task's so far, 0 to 100, and -100 where it has failed."""

    text: str
    score: int
    is_over: bool

    @property
    def error(self) -> str:
        return "the simulator failed" if self.text == BROKEN else REFUSALS.get(self.text, "")

    @property
    def state(self) -> dict[str, Json]:
        return {"score": max(0, self.score) / 100}


class Server(Protocol):
    """The package's Java object, as far as it is used here."""

    def load(self, name: str, variation: int, simplification: str, with_gold: bool) -> str: ...
    def step(self, action: str) -> str: ...
    def getScore(self) -> float: ...
    def getCompleted(self) -> bool: ...
    def getGoldActionSequence(self) -> Sequence[str]: ...


class Name(Protocol):
    """A package, class or method in Java."""

    def __getattr__(self, name: str) -> Name: ...
    def __call__(self, *arguments: object) -> object: ...


class Machine:
    """Starts with a second of work, ends with its process, and is for one thread at a time."""

    def __init__(self, *, heap_mb: int = HEAP_MB) -> None:
        """Raises MachineError where it does not start, and ValueError where there is no Java."""
        serve = ("py4j.GatewayServer", "--enable-auth", "--die-on-broken-pipe", "0")
        jars = os.pathsep.join((find_jar_path(), JAR_PATH))
        command = [java(), f"-Xmx{heap_mb}m", *OPTIONS, *SAME_ORDER, "-classpath", jars, *serve]
        self._told = tempfile.TemporaryFile()
        # It ends itself when its stdin is closed, which the kernel does however this process ends. PR_SET_PDEATHSIG would
        # end it with the *thread* that started it, and threads of a pool come and go.
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._told, cwd=BASEPATH, env=_variables())
        late = Timer(TIMEOUT_S, self._process.kill)
        late.start()
        try:
            self._gateway, self._server = self._connect()
        except (Py4JError, OSError, ValueError) as error:
            reason = self._reason()
            self.close()
            raise MachineError(f"a Java virtual machine did not start: {error} {reason}") from error
        finally:
            late.cancel()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def load(self, name: str, variation: int, *, with_gold: bool = False) -> Sequence[str]:
        """Begin the task afresh; its gold path, where that was asked for."""
        try:
            told = self._server.load(name, variation, SIMPLIFICATION, with_gold)
            if told:
                raise MachineError(f"{name} {variation} could not be loaded: {told}")
            return [str(action) for action in self._server.getGoldActionSequence()] if with_gold else []
        except (Py4JError, OSError) as error:
            raise self._failure(f"a Java virtual machine could not load {name} {variation}: {error}") from error

    def step(self, action: str) -> Reply:
        """The package's own `step` also lists all actions that would be possible, which costs ten times the step itself."""
        server = self._server
        try:
            text = self._say(action)
            score = round(100 * server.getScore())
            return Reply(text, score, server.getCompleted() or score < 0)
        except (Py4JError, OSError) as error:
            raise self._failure(f"a Java virtual machine no longer answers: {error}") from error

    def _say(self, action: str) -> str:
        try:
            return self._server.step(action[:MAX_CHARS].encode(errors="replace").decode())
        except Py4JJavaError as error:
            if "OutOfMemoryError" in str(error):
                raise
            return BROKEN  # the simulator's own mistake, which comes again whenever that action is played again

    def _failure(self, words: str) -> MachineError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_S)
        return MachineError(words) if self.is_alive else MachineDied(words)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._told):
            if file is not None:
                file.close()

    def _connect(self) -> tuple[JavaGateway, Server]:
        stdout = self._process.stdout
        assert stdout is not None
        first = stdout.readline().decode(errors="replace").strip()
        if not first.isdecimal():
            raise ValueError(first or f"it said nothing within {TIMEOUT_S:g} s")
        port, token = int(first), stdout.readline().decode().strip()
        # Without memory management an object dropped here is kept there, which are few; with it each one dropped after the
        # machine's end is a line in the log.
        told = GatewayParameters(port=port, auth_token=token, read_timeout=TIMEOUT_S, enable_memory_management=False)
        gateway = JavaGateway(gateway_parameters=told)
        jvm = cast(Name, gateway.jvm)
        jvm.java.lang.System.setOut(jvm.java.io.PrintStream(os.devnull))  # it prints at every step, and nobody reads it
        return gateway, cast(Server, jvm.scienceworld.runtime.pythonapi.PythonInterface())

    def _reason(self) -> str:
        """What it said on its way out: errors of Java's own go to stdout."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_S)
        self._process.kill()
        assert self._process.stdout is not None
        self._told.seek(0)
        return " ".join((self._process.stdout.read() + b" " + self._told.read()).decode(errors="replace").split())


def java() -> str:
    """The path of the Java to run, or a ValueError with the remedy."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(os.path.join(home, "bin", "java") if home else "java")
    if found is None:
        raise ValueError(f"scienceworld runs on Java, and there is none {f'in {home}' if home else 'on the path'}: {REMEDY}")
    if _version(found) < OLDEST:
        raise ValueError(f"scienceworld runs on Java, and {found} is too old: {REMEDY}")
    return os.path.abspath(found)


@cache
def _version(path: str) -> int:
    """8 for 1.8.0_402, 17 for 17.0.15. ValueError where it does not run as it is to."""
    command = [path, f"-Xmx{HEAP_MB}m", *OPTIONS, *SAME_ORDER, "-version"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, env=_variables(), timeout=TIMEOUT_S)
        said = " ".join((told.stdout + told.stderr).split())
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None:
        raise ValueError(f"scienceworld runs on Java, and {path} does not run: {said[-500:]}; {REMEDY}")
    return int(found[1])


def _variables() -> dict[str, str]:
    """The environment variables without those by which Java takes options that it was not given here."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}
