"""The inside of the sandbox: a process that forks one child a call, shut in before it runs the tool's code.

Standard library only. Started as `sandbox_worker.py LIMITS`: calls come on standard input, as a length in four bytes and JSON;
a call's answer goes to standard output as JSON, and then its status to another pipe. Neither passes through this process, whose
memory every child sees. A child may compute, and nothing else: seccomp shuts off files, sockets, processes and signals,
Landlock files once more, rlimits bound memory and time. It dies with its call, so nothing is left for the next one.
"""

import ctypes
import importlib
import io
import json
import os
import platform
import resource
import select
import signal
import struct
import sys

# Imported at the start, as no file can be read later: what tools may import.
TOOLBOX = """_strptime base64 bisect calendar cmath collections.abc copy dataclasses datetime decimal difflib enum fractions
functools hashlib heapq html itertools math numbers operator random re statistics string textwrap time types typing unicodedata
urllib.parse uuid zoneinfo"""
LIBC = ctypes.CDLL(None, use_errno=True)
NAMESPACES = 0x10000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x00020000  # user, network, IPC, host name, mounts
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
# System calls that a computing Python needs, by architecture; all others fail with EPERM.
ALLOWED = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
        "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39,
        "exit": 60, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "clock_gettime": 228, "clock_getres": 229,
        "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "lseek": 62, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214,
        "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124, "mremap": 216, "madvise": 233,
        "nanosleep": 101, "getpid": 172, "exit": 93, "sigaltstack": 132, "gettid": 178, "futex": 98, "clock_gettime": 113,
        "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94, "getrandom": 278,
    },
}  # fmt: skip
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
LANDLOCK_CREATE, LANDLOCK_RESTRICT = 444, 446  # on both
FAIL, ALLOW, KILL = 0x00050000 | 1, 0x7FFF0000, 0x80000000  # what a seccomp filter returns; FAIL is with EPERM
TIMEOUT = -1000  # a status; others are those of `Popen.returncode`


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def shut_files() -> None:
    """No file can be opened, whoever asks: every access that the kernel's version of Landlock knows is handled, none allowed."""
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        raise OSError("no Landlock")
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    ruleset = LIBC.syscall(LANDLOCK_CREATE, struct.pack("Q", (1 << bits) - 1), 8, 0)
    if ruleset < 0 or LIBC.syscall(LANDLOCK_RESTRICT, ruleset, 0):
        raise OSError("Landlock refused")
    os.close(ruleset)


def shut_calls() -> None:
    """Only the allowed system calls (seccomp, a program in classic BPF)."""
    machine = platform.machine()
    numbers = sorted(ALLOWED[machine].values())
    load, equal, give = 0x20, 0x15, 0x06

    def instruction(code: int, yes: int, no: int, value: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    program = [
        instruction(load, 0, 0, 4), instruction(equal, 1, 0, ARCHITECTURES[machine]), instruction(give, 0, 0, KILL),
        instruction(load, 0, 0, 0),
    ]  # fmt: skip
    program += [instruction(equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    program += [instruction(give, 0, 0, FAIL), instruction(give, 0, 0, ALLOW)]
    if LIBC.prctl(PR_SET_SECCOMP, 2, ctypes.byref(Program(len(program), b"".join(program))), 0, 0):
        raise OSError("seccomp refused")


def shut_in(limits: dict) -> None:
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("no_new_privs refused")
    if "landlock" in limits["isolation"]:
        shut_files()
    for name, value in (
        (resource.RLIMIT_AS, limits["memory_mb"] * 2**20), (resource.RLIMIT_CPU, limits["cpu_s"]), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_NOFILE, 2),
    ):  # fmt: skip
        resource.setrlimit(name, (value, value))
    if "seccomp" in limits["isolation"]:
        shut_calls()


def run(request: dict) -> dict:
    """What the tool gives, or the error that it raised. What JSON does not have is given as its text."""
    sys.stdin = sys.stdout = sys.stderr = io.StringIO()
    space: dict = {"__name__": "tool"}
    try:
        exec(compile(request["code"], "tool", "exec"), space)
        tool = space[request["name"]]
        if request["arguments"] is None:
            return {"result": callable(tool)}
        result = tool(**request["arguments"])
    except BaseException as error:  # the tool's own failure, SystemExit too
        return {"error": f"{type(error).__name__}: {error}"}
    try:
        json.dumps(result, allow_nan=False)
        return {"result": result}
    except (TypeError, ValueError, RecursionError):
        return {"result": str(result)}


def read(size: int) -> bytes:
    """As many bytes of standard input, or fewer at its end."""
    parts = []
    while size and (part := os.read(0, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def child(size: int, limits: dict, parent: int) -> None:
    """Never returns. The call is read here, so that no other child's memory ever holds it."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be followed
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.closerange(2, 256)
    body = read(size)
    os.close(0)
    try:
        shut_in(limits)
        answer = json.dumps(run(json.loads(body))).encode()
    except BaseException as error:
        answer = json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
    while answer:
        answer = answer[os.write(1, answer) :]
    os._exit(0)


def play(size: int, limits: dict) -> int:
    """One call in a child of its own: the status that it ended with."""
    parent, pid = os.getpid(), os.fork()
    if not pid:
        try:
            child(size, limits, parent)
        finally:
            os._exit(1)
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(0, 0)  # closed: whoever asked is dead
    ready = dict(poll.poll(limits["wall_s"] * 1000))
    if ended not in ready:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(ended)
    return os.waitstatus_to_exitcode(status) if ready else TIMEOUT


def main(limits: dict, status: int) -> None:
    os.environ.clear()
    for name in TOOLBOX.split():
        importlib.import_module(name)
    if "namespaces" in limits["isolation"] and LIBC.unshare(NAMESPACES):
        raise OSError("namespaces refused")
    while header := read(4):
        os.write(status, struct.pack("i", play(struct.unpack("I", header)[0], limits)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
