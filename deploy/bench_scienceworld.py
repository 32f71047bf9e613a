"""What ScienceWorld's environment holds to and costs, on real machines; a step's reference is the package's own `step`.

usage: python -m deploy.bench_scienceworld [gold] [speed] [leak] [--leak N] [--seed N]
All without a name; writes runs/bench/scienceworld-<name>.json.

gold: each of the 30 tasks' gold path reaches the score that the package gives. speed: steps a second and memory with 1, 4 and 8
environments in one process. leak: a process is killed after many episodes, and none of its machines is left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import psutil
from scienceworld import ScienceWorldEnv

from deploy.figure import Figure
from envs.scienceworld import LEVELS, ScienceWorld, oracle, taskset
from envs.scienceworld.machine import HEAP_MB, OPTIONS, SAME_ORDER, SIMPLIFICATION, Server
from envs.scienceworld.pool import VARIABLE, pool
from envs.scienceworld.scienceworld import MAX_MESSAGES
from envs.scienceworld.tasks import SPLITS
from envs.types import Message, Task

NUM_ENVS = (1, 4, 8)
SPEED_LEVELS = ("find-plant", "boil", "use-thermometer", "chemistry-mix")
EPISODES = """
from envs.scienceworld import ScienceWorld, taskset
from envs.types import Message, ToolCall
tasks = taskset("train", "find-plant")
envs = [ScienceWorld() for _ in range(8)]
for number in range({count}):
    env = envs[number % 8]
    env.reset(tasks[number % len(tasks)])
    env.step(Message("assistant", "", (ToolCall("act", {{"action": "wait1"}}),)))
print("done", flush=True)
input()
"""


def figure(name: str, value: float, reference: float, *, unit: str, goal: float | None) -> None:
    command = f"python -m deploy.bench_scienceworld {name.partition('-')[0].replace('memory', 'speed')}"
    Figure(f"scienceworld-{name}", value, reference, unit, goal, command).tell()


def package() -> ScienceWorldEnv:
    """The package's own, within the same memory and with things in the same order."""
    os.environ["JAVA_TOOL_OPTIONS"] = " ".join((f"-Xmx{HEAP_MB}m", *OPTIONS, *SAME_ORDER))
    try:
        return ScienceWorldEnv("", envStepLimit=10 * MAX_MESSAGES)
    finally:
        del os.environ["JAVA_TOOL_OPTIONS"]


def any_task(level: str, rng: random.Random) -> Task:
    return rng.choice([task for split in SPLITS for task in taskset(split, level)])


def variation_of(task: Task) -> int:
    return cast(int, task.payload["variation"])


def actions_of(messages: Sequence[Message]) -> list[str]:
    return [str(message.calls[0].arguments["action"]) for message in messages]


def gold(seed: int) -> None:
    rng, own, good = random.Random(seed), package(), 0
    for level in LEVELS:
        task = any_task(level, rng)
        path = oracle(task)
        env, observation = ScienceWorld(), None
        env.reset(task)
        for message in path:
            observation = env.step(message)
        own.load(level, variation_of(task), SIMPLIFICATION)
        server = cast(Server, own.server)
        for action in actions_of(path):
            server.step(action)
        score = round(100 * server.getScore())
        assert observation is not None
        good += observation.done and observation.signals.state == {"score": score / 100}
        print(f"{task.id:60} {len(path):4} actions: {observation.signals.state}, the package says {score}", flush=True)
    own.close()
    figure("gold", good, len(LEVELS), unit="tasks whose gold path scores as the package says", goal=1.0)


def speed() -> None:
    for count in NUM_ENVS:
        os.environ[VARIABLE] = str(count)
        pool.cache_clear()
        tasks = [taskset("train", SPEED_LEVELS[number % len(SPEED_LEVELS)])[number] for number in range(count)]
        paths = [list(oracle(task)) for task in tasks]
        envs = [ScienceWorld() for _ in tasks]
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(_play, envs, tasks, paths))  # machines are slow at first
            begun = time.perf_counter()
            steps = sum(threads.map(_play, envs, tasks, paths))
            rate = steps / (time.perf_counter() - begun)
        machines = [psutil.Process(pid).memory_info().rss / 2**20 for pid in pool().pids]
        own = psutil.Process().memory_info().rss / 2**20
        print(
            f"{count} environments: {rate:.0f} steps/s; machines of {max(machines):.0f} MiB at most, this process {own:.0f} MiB"
        )
        figure(f"speed-{count}", rate, _package_rate(tasks[0], paths[0]), unit="steps/s, package's own step", goal=None)
        figure(f"memory-{count}", sum(machines) + own, count * 1024, unit="MiB, a GiB each", goal=None)
        pool().close()


def _play(env: ScienceWorld, task: Task, path: Sequence[Message]) -> int:
    env.reset(task)
    for message in path:
        env.step(message)
    return len(path)


def _package_rate(task: Task, path: Sequence[Message]) -> float:
    own, begun = package(), 0.0
    for _ in range(2):
        own.load(task.level, variation_of(task), SIMPLIFICATION)
        begun = time.perf_counter()
        for action in actions_of(path):
            own.step(action)
    rate = len(path) / (time.perf_counter() - begun)
    own.close()
    return rate


def leak(count: int) -> None:
    command = [sys.executable, "-c", EPISODES.format(count=count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, left = psutil.wait_procs(children, timeout=30)
    print(f"{count} episodes on {len(children)} machines, then SIGKILL: {len(left)} left")
    figure("leak", len(children) - len(left), len(children), unit="machines that ended with their process", goal=1.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="gold|speed|leak")
    for name, default in (("leak", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    benches = {
        "gold": lambda: gold(asked.seed),
        "speed": speed,
        "leak": lambda: leak(asked.leak),
    }
    if unknown := set(asked.names) - set(benches):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(benches)}")
    for name in asked.names or benches:
        begun = time.perf_counter()
        benches[name]()
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
