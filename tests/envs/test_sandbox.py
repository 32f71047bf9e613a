"""Programs that try to get out of the sandbox, to stay in it, or to break what runs it. Each ends with WON where it succeeds."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs import sandbox as module
from envs.sandbox import Limits, Sandbox, SandboxError

LIMITS = Limits(memory_mb=256, cpu_s=1, wall_s=1.5, output_bytes=2**16)
SYSCALL = "__import__('ctypes').CDLL(None, use_errno=True).syscall"
# An expression that has to raise, or to be false.
EXPRESSIONS = {
    # network
    "tcp socket": "__import__('socket').socket()",
    "udp socket": "__import__('socket').socket(2, 2)",
    "ipv6 socket": "__import__('socket').socket(10)",
    "unix socket": "__import__('socket').socket(1)",
    "netlink socket": "__import__('socket').socket(16, 3)",
    "raw socket": "__import__('socket').socket(2, 3, 1)",
    "socket pair": "__import__('socket').socketpair()",
    "url": "__import__('urllib.request').request.urlopen('http://127.0.0.1:1')",
    "name lookup": "__import__('socket').getaddrinfo('localhost', 80)",
    "socket by its number": f"{SYSCALL}(41, 2, 1, 0) >= 0",
    "io_uring": f"{SYSCALL}(425, 8, 0) >= 0",
    # files
    "read a file": "open('/etc/passwd').read()",
    "read by descriptor": "os.open('/etc/passwd', os.O_RDONLY)",
    "read by libc": "__import__('ctypes').CDLL(None).open(b'/etc/passwd', 0) >= 0",
    "read by openat2": f"{SYSCALL}(437, -100, b'/etc/passwd', 0, 0) >= 0",
    "list the root": "os.listdir('/')",
    "scan a folder": "list(os.scandir('/tmp'))",
    "find files": "__import__('glob').glob('/etc/*')",
    "stat": "os.stat('/etc/passwd')",
    "exists": "os.path.exists('/etc/passwd')",
    "write a file": "open('{canary}', 'w').write('x')",
    "make a folder": "os.mkdir('{canary}') is None",
    "link": "os.symlink('/etc/passwd', '{canary}') is None",
    "rename": "os.rename('{witness}', '{canary}') is None",
    "delete": "os.unlink('{witness}') is None",
    "truncate": "os.truncate('{witness}', 0) is None",
    "change mode": "os.chmod('{witness}', 0o777) is None",
    "shared memory": "open('/dev/shm/tiltyard-canary', 'w')",
    "memory file": "os.memfd_create('x')",
    "named pipe": "os.mkfifo('{canary}') is None",
    "temporary file": "__import__('tempfile').TemporaryFile()",
    "change folder": "os.chdir('/tmp') is None",
    "change root": "os.chroot('/tmp') is None",
    "mount": f"{SYSCALL}(165, b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
    "own code": "open(__import__('sys').executable, 'rb').read(1)",
    "import by path": "__import__('importlib.util').util.spec_from_file_location('x', '{witness}').loader.get_data('{witness}')",
    # /proc
    "environment in /proc": "open('/proc/self/environ').read()",
    "memory in /proc": "open('/proc/self/mem', 'r+b')",
    "maps in /proc": "open('/proc/self/maps').read()",
    "parent in /proc": "open(f'/proc/{{os.getppid()}}/mem', 'rb')",
    "init in /proc": "open('/proc/1/cmdline').read()",
    "descriptors in /proc": "os.listdir('/proc/self/fd')",
    "sysctl": "open('/proc/sys/kernel/hostname', 'w')",
    # environment
    "environment": "dict(os.environ)",
    "a variable": "os.environ.get('PATH') or os.getenv('HOME') or os.getenv('PYTHONHASHSEED')",
    "libc's environment": "__import__('ctypes').CDLL(None).getenv(b'PATH')",
    # descriptors that others left open
    "read what is asked next": "os.read(0, 1)",
    "write the status": "[os.write(fd, b'\\0' * 4) for fd in range(2, 64)]",
    "any other descriptor": "any(not os.set_inheritable(fd, True) for fd in range(2, 64))",
    # processes
    "fork": "os.fork() >= 0",
    "fork by libc": "__import__('ctypes').CDLL(None).fork() >= 0",
    "vfork by its number": f"{SYSCALL}(58) >= 0",
    "clone3": f"{SYSCALL}(435, 0, 0) >= 0",
    "system": "os.system('true') == 0",
    "subprocess": "__import__('subprocess').run(['/bin/true'])",
    "exec": "os.execv('/bin/true', ['true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "thread": "__import__('threading').Thread(target=print).start() is None",
    "new session": "os.setsid() >= 0",
    "process group": "os.setpgid(0, 0) is None",
    # signals and limits
    "kill the parent": "os.kill(os.getppid(), 9) is None",
    "kill everything": "os.kill(-1, 9) is None",
    "stop the parent": "os.kill(os.getppid(), 19) is None",
    "kill the group": "os.killpg(0, 9) is None",
    "kill by its number": f"{SYSCALL}(62, os.getppid(), 9) == 0",
    "tgkill": f"{SYSCALL}(234, os.getppid(), os.getppid(), 9) == 0",
    "pidfd": "os.pidfd_open(1)",
    "ptrace": f"{SYSCALL}(101, 16, os.getppid(), 0, 0) == 0",
    "read the parent's memory": f"{SYSCALL}(310, os.getppid(), 0, 0, 0, 0, 0) >= 0",
    "more memory": "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (-1, -1)) is None",
    "survive the parent": f"{SYSCALL}(157, 1, 0, 0, 0, 0) == 0",
    "another user": "os.setuid(0) is None",
    "namespaces": f"{SYSCALL}(272, 0x10000000) == 0",
    "keys": f"{SYSCALL}(250, 0, -3, 0, 0, 0) >= 0",
    "bpf": f"{SYSCALL}(321, 0, 0, 0) >= 0",
    "reboot": f"{SYSCALL}(169, 0, 0, 0) == 0",
    "clock": f"{SYSCALL}(227, 0, 0) == 0",
}  # fmt: skip
# Bodies of a function.
PROGRAMS = {
    "fork bomb": "while True:\n    try:\n        os.fork()\n        return 'WON'\n    except BlockingIOError:\n        pass",
    "memory bomb": "x = []\nwhile True:\n    x.append(bytearray(2**24))",
    "memory at once": "return 'WON' if bytearray(10**10) else 0",
    "mapped memory": "import mmap\nreturn 'WON' if mmap.mmap(-1, 10**10) else 0",
    "endless loop": "while True:\n    pass",
    "endless loop in C": "sum(iter(int, 1))",
    "endless expression": "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    "endless power": "return 'WON' if 9 ** 9 ** 9 else 0",
    "deaf endless loop": "import signal\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass",
    "endless sleep": "import time\ntime.sleep(1000)\nreturn 'WON'",
    "10 GB output": "return 'x' * 10**10",
    "output beyond the limit": "return 'WON' + 'x' * 2**20",
    "10 GB written": "while True:\n    os.write(1, b'x' * 65536)",
    "10 GB printed": "while True:\n    print('x' * 2**20)",
    "endless recursion": "def g():\n    return g()\nreturn g()",
    "deep result": "x = []\nfor _ in range(100000):\n    x = [x]\nreturn x",
    "raw deep result": "os.write(1, b'[' * 60000)\nos._exit(0)",
    "half a surrogate": "return '\\ud800'",
    "no number": "return float('nan')",
    "a number without end": "os.write(1, b'{\"result\": ' + b'9' * 60000 + b'}')\nos._exit(0)",
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "os._exit(0)",
    "crash": "import ctypes\nctypes.string_at(0)",
    "abort": "import ctypes\nctypes.CDLL(None).abort()",
    "pickle": "import pickle\nreturn pickle.dumps(type('X', (), {'__reduce__': lambda s: (os.system, ('true',))})())",
    "object with a trap": "class X:\n    def __reduce__(self):\n        return os.system, ('true',)\n    __str__ = __reduce__\n"
    "return X()",
    "text with a trap": "class X(str):\n    def encode(self, *a):\n        raise SystemExit\nreturn X('x')",
    "base exception": "raise BaseException('x')",
}  # fmt: skip


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    try:
        sandbox = Sandbox(workers=1, limits=LIMITS)
    except SandboxError as error:
        pytest.skip(str(error))
    yield sandbox
    sandbox.close()


def children(of: str = "") -> set[int]:
    """Workers and calls, of every sandbox, or those that a process began."""
    parent = ["-P", of] if of else []
    found = subprocess.run(["pgrep", *parent, "-f", "sandbox_worker.py"], capture_output=True, text=True, check=False).stdout
    return {int(pid) for pid in found.split()}


def answers_as_ever(box: Sandbox) -> None:
    given = box.call("import json\ndef f(x):\n    return json.loads(json.dumps({'x': x + 1}))", "f", {"x": 1})
    assert (given.result, given.error) == ({"x": 2}, "")


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_nothing_outside_can_be_reached(box: Sandbox, tmp_path: Path, name: str) -> None:
    canary, witness = tmp_path / "canary", tmp_path / "witness"
    witness.write_text("as it was")
    expression = EXPRESSIONS[name].format(canary=canary, witness=witness)
    given = box.call(f"import os\ndef f():\n    return 'WON' if {expression} else 'lost'", "f", {})
    assert given.result in (None, "lost"), given
    assert not canary.exists() and witness.read_text() == "as it was" and not Path("/dev/shm/tiltyard-canary").exists()
    answers_as_ever(box)


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_lasts_and_nothing_breaks_the_sandbox(box: Sandbox, name: str) -> None:
    begun = time.monotonic()
    given = box.call(f"import os\ndef f():\n{textwrap.indent(PROGRAMS[name], '    ')}", "f", {})
    assert "WON" not in str(given.result), given
    assert time.monotonic() - begun < 10
    answers_as_ever(box)
    workers = children(str(os.getpid()))
    assert not children() - workers, "only workers are left"


POISON = {
    "builtins": "import builtins\nbuiltins.len = builtins.sum = builtins.dict = None",
    "json": "import json\njson.dumps = json.loads = lambda *a, **k: 'WON'",
    "a module": "import math\nmath.sqrt = lambda x: 'WON'",
    "sys.modules": "import sys\nsys.modules.clear()",
    "the path": "import sys\nsys.path.insert(0, '/tmp')\nsys.meta_path.clear()",
    "a new module": "import sys, types\nsys.modules['state'] = types.SimpleNamespace(secret='SECRET')",
    "the type of numbers": "import decimal\ndecimal.getcontext().prec = 1",
    "randomness": "import random\nrandom.random = lambda: 0\nrandom.seed(1)",
}


@pytest.mark.parametrize("name", POISON)
def test_a_call_leaves_nothing_for_the_next(box: Sandbox, name: str) -> None:
    box.call(f"def f(secret):\n{textwrap.indent(POISON[name], '    ')}", "f", {"secret": "SECRET"})
    answers_as_ever(box)
    looking = (
        "import gc, sys, math, decimal\ndef f():\n    marker = 'SEC' + 'RET'\n"
        "    seen = any(type(x) is str and marker in x for x in gc.get_objects()) or 'state' in sys.modules\n"
        "    return [seen, math.sqrt(4), decimal.getcontext().prec]"
    )
    assert box.call(looking, "f", {}).result == [False, 2.0, 28]


def test_a_call_finds_no_bytes_of_the_one_before(box: Sandbox) -> None:
    """The worker's memory, which every child inherits, never holds a call: not even as bytes that were freed."""
    marker = "Kd83hQzP"
    box.call(f"# {marker * 50}\ndef f(x):\n    return x", "f", {"x": marker * 50})
    scan = (
        "import ctypes, gc\ndef f(a, b):\n    marker = (a + b).encode()\n    hits = 0\n"
        "    for x in gc.get_objects():\n        here = id(x) & ~0xffff\n"
        "        if here in seen:\n            continue\n        seen.add(here)\n"
        "        try:\n            hits += ctypes.string_at(id(x) & ~0xfff, 4096).count(marker * 3)\n"
        "        except Exception:\n            pass\n"
        "    return hits\nseen = set()\n"
    )
    given = box.call(scan, "f", {"a": "Kd83", "b": "hQzP"})
    assert given.result == 0, given


def test_errors_of_a_tool_are_told(box: Sandbox) -> None:
    assert box.call("def f(x):\n    return x", "f", {}).error.startswith("TypeError: f() missing")
    assert box.call("def f(x:", "f", {}).error.startswith("SyntaxError")
    assert box.call("", "f", {}).error == "KeyError: 'f'"
    assert box.call("def f():\n    return open('/etc/passwd')", "f", {}).error.startswith("PermissionError")
    assert box.call("import numpy\ndef f():\n    return 1", "f", {}).error == "ModuleNotFoundError: No module named 'numpy'"


def test_results_come_back_as_json_and_the_rest_as_text(box: Sandbox) -> None:
    code = "import datetime\ndef f(x):\n    print('not a result')\n    return {'a': [1, 2.5, None, True, 'é'], 'b': x}"
    assert box.call(code, "f", {"x": {"y": [1]}}).result == {"a": [1, 2.5, None, True, "é"], "b": {"y": [1]}}
    assert box.call("import datetime\ndef f():\n    return datetime.date(2020, 1, 2)", "f", {}).result == "2020-01-02"
    assert box.call("def f():\n    return {1, 2}", "f", {}).result == "{1, 2}"


def test_a_worker_killed_between_calls_is_replaced(box: Sandbox) -> None:
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
    answers_as_ever(box)


@pytest.mark.parametrize("doing", ["while True:\n        pass", "import time\n    time.sleep(60)"])
def test_workers_and_their_calls_die_with_their_process(doing: str) -> None:
    before = children()
    program = (
        "from envs.sandbox import Sandbox, Limits\nimport threading, time\n"
        "s = Sandbox(workers=2, limits=Limits(cpu_s=60, wall_s=60))\n"
        f"threading.Thread(target=s.call, args=({f'def f():{chr(10)}    {doing}'!r}, 'f', {{}})).start()\n"
        "time.sleep(0.3)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    assert len(children() - before) == 3, "two workers and a call"
    process.kill()
    process.wait()
    end = time.monotonic() + 5
    while children() - before and time.monotonic() < end:
        time.sleep(0.05)
    assert not children() - before


def test_without_isolation_it_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ISOLATIONS", (("rlimits",),))
    with pytest.raises(SandboxError, match="rlimits: lets .* through.*--insecure"):
        Sandbox()
    insecure = Sandbox(insecure=True)
    assert insecure.call("def f():\n    return 1", "f", {}).result == 1
    insecure.close()


def test_what_it_costs(box: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Told, and never judged: these machines are shared."""
    begun = time.monotonic()
    fresh = Sandbox(limits=LIMITS)
    started = time.monotonic() - begun
    begun = time.monotonic()
    for _ in range(200):
        answers_as_ever(fresh)
    per_call = (time.monotonic() - begun) / 200
    fresh.close()
    with capsys.disabled():
        rate = f"a call {1e3 * per_call:.2f} ms, {1 / per_call:.0f} calls/s on one worker"
        print(f"\nsandbox: {' + '.join(fresh.isolation)}; start-up with probes {1e3 * started:.0f} ms, {rate}")
