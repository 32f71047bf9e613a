"""`make bench-scale`: the real control plane at scale, with engines and a learner that only take their time.

usage: python -m deploy.bench_scale [turns] [lag] [tail]     all without a name; writes runs/bench/scale-*.json

Real: curriculum, environment actors, renderer, rewards, engine pool, buffer, ledger, store, loop, each where Ray puts it
in a run. Simulated: an engine sleeps for a time drawn from a heavy-tailed distribution (Pareto, index 1.5: a twentieth of
the calls takes more than 2.4 times the mean) and plays a scripted action; the learner sleeps through its update.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from actors.config import ActorsConfig
from actors.engine import Completion, Engine, Sampling
from actors.engine_pool import EnginePool
from actors.env_actor import EnvActor
from actors.renderer import Renderer
from actors.scripted_engine import ScriptedEngine
from cluster.breakdown import parts
from cluster.config import ClusterConfig, Config
from cluster.keeper import Keeper
from cluster.memory import GIB, MemoryPeak, tree_gb
from cluster.metrics import StepReport, read_history
from cluster.placement import tasks
from cluster.preflight import check
from cluster.remote import RaySpawn
from cluster.session import session
from cluster.system import System
from cluster.telemetry import Telemetry, TelemetryConfig
from cluster.train import train
from curriculum.config import CurriculumConfig, StageConfig, ValidationConfig
from curriculum.coordinator import Coordinator
from envs.config import rules
from envs.environment import environment
from envs.types import Message, ToolCall
from learner.batch import Batch
from learner.buffer import Buffer
from learner.config import LearnerConfig
from learner.weights import Weights
from rewards.config import rubrics

OUT = Path("runs/bench")
TAIL_INDEX, LONGEST = 1.5, 50.0  # of the Pareto distribution; the longest call, in means
GROUP_SIZE, NUM_ENGINES, NUM_ENV_ACTORS = 8, 64, 2
WAITS = ("engine", "environment", "reward", "actor")  # what the wait for groups is divided into
PARTS = {"EnvActor": "environments", "CountingPool": "pool", "Coordinator": "curriculum"}  # the rest is Ray
QUIET = TelemetryConfig(console=False, tensorboard=False, prometheus=False)


@dataclass(frozen=True, slots=True)
class Case:
    """What one run simulates; `mean_s` is an engine call's mean latency, `update_s` the learner's step.

    Turns are counted as played, those of groups still open at the end too.
    """

    num_open: int
    groups_per_batch: int
    num_steps: int
    max_lag: int
    mean_s: float
    update_s: float
    redundancy: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    turns_per_s: float
    groups_per_s: float
    ms_per_turn: Mapping[str, float]  # of CPU, by part
    driver_share: float  # of one core
    kb_per_trajectory: float
    idle: float  # share of the learner's time that it waited for groups
    stale: float  # share of the groups that were dropped for their age
    cancelled: float  # share of the trajectories that were begun
    tokens_each: float  # sampled in a finished trajectory, and in a cancelled one until then
    cancelled_tokens_each: float


class CountingPool(EnginePool):
    """The real pool, which also tells how many calls it has answered."""

    num_answered = 0

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        completion = await super().generate(tokens, sampling, session=session)
        self.num_answered += 1
        return completion

    async def answered(self) -> int:
        return self.num_answered


class Script:
    """Two calls and an answer a user turn; every other sibling begins with a call that cannot be read."""

    def __init__(self, call: Sequence[int], answer: Sequence[int], broken: Sequence[int]) -> None:
        self._moves, self._broken = (tuple(call), tuple(call), tuple(answer)), tuple(broken)
        self._turns: Counter[str] = Counter()

    def __call__(self, tokens: Sequence[int], session: str) -> Sequence[int]:
        turn = self._turns[session]
        self._turns[session] += 1
        is_odd = int(session.rpartition("-")[2]) % 2
        return self._broken if is_odd and not turn else self._moves[turn % len(self._moves)]


class Latency:
    """Seconds of one call."""

    def __init__(self, mean_s: float, seed: int) -> None:
        self._scale, self._random = mean_s * (TAIL_INDEX - 1) / TAIL_INDEX, random.Random(seed)

    def __call__(self, session: str) -> float:
        return self._scale * min(self._random.paretovariate(TAIL_INDEX), LONGEST * 3)


class SleepingLearner:
    """A Learner whose update takes its time and nothing else."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._step = seconds, 0

    async def update(self, batch: Batch) -> Mapping[str, float]:
        await asyncio.sleep(self._seconds)
        self._step += 1
        return {"learner/seconds": self._seconds}

    async def publish(self) -> Weights:
        return Weights(self._step, "", "")

    async def save(self, path: str) -> None:
        return None

    async def load(self, path: str) -> None:
        return None


async def no_respawn(index: int) -> Engine:
    raise RuntimeError(f"simulated engine {index} failed")


def settings(case: Case) -> Config:
    stage = StageConfig("scale", {"3": 1.0}, reward="format", group_size=GROUP_SIZE)
    return Config(
        name="bench-scale",
        curriculum=CurriculumConfig([stage], ValidationConfig(1, 10**6)),
        actors=ActorsConfig(
            calls="python",
            max_open_groups=case.num_open // GROUP_SIZE,
            num_env_actors=NUM_ENV_ACTORS,
            deadline_s=1e4,
            redundancy=case.redundancy,
        ),
        learner=LearnerConfig(
            num_steps=case.num_steps,
            groups_per_batch=case.groups_per_batch,
            max_lag=case.max_lag,
            max_tokens=10**9,
            checkpoint_every=10**6,
        ),
        cluster=ClusterConfig(telemetry=QUIET),
    )


def build(config: Config, case: Case, model: str) -> tuple[System, CountingPool]:
    renderer, spawn = Renderer(model, config.actors.calls), RaySpawn("scale")
    call = renderer.act(Message("assistant", "", (ToolCall("find", {"name": "lamp"}),)))
    answer = renderer.act(Message("assistant", "Done."))
    script = Script(call, answer, (*renderer.encode("[find("), renderer.eos))
    engines = [ScriptedEngine(script, latency=Latency(case.mean_s, number)) for number in range(NUM_ENGINES)]
    pool = spawn(partial(CountingPool, engines, no_respawn), "engines")
    make = partial(
        EnvActor, config.actors, spawn.caller(pool), model=model, rules=rules(config.envs), rubrics=rubrics(config.rewards)
    )
    limits, entry = config.learner, environment("shop")
    coordinator = partial(Coordinator, config.curriculum, env="shop", tasks=tasks(config, "train"), oracle=entry.oracle, seed=0)
    system = System(
        config=config,
        curriculum=spawn(coordinator, "curriculum"),
        actors=tuple(spawn(make, f"env-{number}") for number in range(NUM_ENV_ACTORS)),
        engines=pool,
        learner=SleepingLearner(case.update_s),
        buffer=Buffer(groups_per_batch=limits.groups_per_batch, max_lag=limits.max_lag, max_refills=limits.max_refills),
    )
    return system, pool


async def play(case: Case, model: str) -> Result:
    config = settings(case)
    folder = Path(tempfile.mkdtemp(prefix="tiltyard-scale-"))
    try:
        system, pool = build(config, case, model)
        await system.engines.ready()
        await system.curriculum.status()
        telemetry = Telemetry(folder, QUIET, total_steps=case.num_steps)
        keeper = Keeper(system, folder, telemetry, validation=[])
        before, memory = tree_gb(), MemoryPeak(every_s=5.0)
        watching = asyncio.create_task(memory.watch())
        cpu, wall = _cpu_s(), time.perf_counter()
        await train(system, keeper)
        cpu, wall = _cpu_s() - cpu, time.perf_counter() - wall
        played = await pool.answered()
        watching.cancel()
        keeper.close()
        telemetry.close()
        steps = read_history(folder).steps
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    groups = _sum(steps, "actors/trajectories") / GROUP_SIZE
    cancelled = _sum(steps, "actors/cancelled")
    kb = (memory.peak_gb - before) * GIB / 1e3 / case.num_open
    ms_per_turn = {part: 1e3 * seconds / played for part, seconds in cpu.most_common()}
    return Result(
        played / wall,
        groups / wall,
        ms_per_turn,
        driver_share=cpu["driver"] / wall,
        kb_per_trajectory=kb,
        idle=_idle(steps[1:]),
        stale=_sum(steps, "buffer/stale") / groups,
        cancelled=cancelled / (cancelled + groups * GROUP_SIZE),
        tokens_each=_mean(steps, "actors/tokens_each"),
        cancelled_tokens_each=_mean(steps, "actors/cancelled_tokens_each"),
    )


def _sum(steps: Sequence[StepReport], name: str) -> float:
    return sum(step.metrics.get(name, 0.0) for step in steps)


def _mean(steps: Sequence[StepReport], name: str) -> float:
    found = [step.metrics[name] for step in steps if name in step.metrics]
    return sum(found) / len(found) if found else 0.0


def _cpu_s() -> Counter[str]:
    """CPU seconds of this process and all below it, by part."""
    own = psutil.Process()
    found = Counter(driver=sum(own.cpu_times()[:2]))
    for process in own.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            title = (process.cmdline() or [""])[0].removeprefix("ray::").partition(".")[0].strip()
            found[PARTS.get(title, "Ray")] += sum(process.cpu_times()[:2])
    return found


def _idle(steps: Sequence[StepReport]) -> float:
    """The share of the wall time that the learner waited for groups, the first step (nothing was under way) left out."""
    waited = sum(parts(step.metrics).get(name, 0.0) for step in steps for name in WAITS)
    return waited / sum(step.seconds for step in steps)


def tell(name: str, case: Case, result: Result) -> None:
    print(
        f"{name:14} {result.turns_per_s:7.0f} turns/s {result.groups_per_s:6.1f} groups/s   "
        f"driver {result.driver_share:4.0%} of a core   "
        f"{result.kb_per_trajectory:6.0f} kB a trajectory   learner idle {result.idle:5.1%}   dropped {result.stale:.1%}"
    )
    shares = ", ".join(f"{part} {spent:.2f}" for part, spent in result.ms_per_turn.items())
    print(f"{'':14} {sum(result.ms_per_turn.values()):7.2f} ms of CPU a turn: {shares}", flush=True)
    if case.redundancy:
        lengths = f"{result.cancelled_tokens_each:.0f} tokens by then, the finished {result.tokens_each:.0f}"
        print(f"{'':14} {result.cancelled:7.0%} of the trajectories cancelled: {lengths}", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    record = {**asdict(case), **asdict(result), "command": "make bench-scale"}
    (OUT / f"scale-{name.replace(' ', '-')}.json").write_text(json.dumps(record, indent=1))


TURNS = Case(num_open=1000, groups_per_batch=128, num_steps=12, max_lag=4, mean_s=0.2, update_s=0.1)
LAG = Case(num_open=640, groups_per_batch=16, num_steps=12, max_lag=0, mean_s=0.3, update_s=4.0)
CASES = {
    # The lag allows as many groups to be open, and more of them end than are open: each case is in full swing.
    "turns": {"open 1000": TURNS, "open 10000": replace(TURNS, num_open=10_000, mean_s=2.0, groups_per_batch=320, num_steps=11)},
    "lag": {f"lag {lag}": replace(LAG, max_lag=lag) for lag in (0, 1, 2, 4)},
    "tail": {f"redundancy {extra}": replace(LAG, redundancy=extra) for extra in (0, 2)},
}


def main(names: Sequence[str]) -> None:
    model = str(check(settings(TURNS)))
    for name in names or CASES:
        for title, case in CASES[name].items():
            with session(settings(case).cluster):
                tell(title, case, asyncio.run(play(case, model)))


if __name__ == "__main__":
    main(sys.argv[1:])
