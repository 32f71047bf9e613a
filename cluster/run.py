"""One run, from its parts to its end: place, restore, evaluate, train, evaluate."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.calls import CALL_FORMATS
from cluster.config import Config, save
from cluster.evaluate import Levels
from cluster.export import export
from cluster.keeper import Keeper, Stopped
from cluster.memory import MemoryPeak
from cluster.metrics import LevelResult
from cluster.placement import place, tasks
from cluster.report import write_report
from cluster.session import session
from cluster.supervise import watch
from cluster.system import System
from cluster.telemetry import Telemetry
from cluster.train import train
from learner.checkpoint import Checkpoint
from learner.files import replace_text

SPENT = "spent.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; `after` is None where it was stopped before its end."""

    before: Levels
    after: Levels | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run took, all its parts between stop and resume together."""

    wall_s: float = 0.0
    peak_memory_gb: float = 0.0

    @staticmethod
    def read(folder: Path) -> Spent:
        path = folder / SPENT
        return Spent(**json.loads(path.read_text())) if path.exists() else Spent()

    def more(self, folder: Path, *, wall_s: float, peak_gb: float) -> None:
        """Add a part's, for good."""
        spent = Spent(self.wall_s + wall_s, max(self.peak_memory_gb, peak_gb))
        replace_text(folder / SPENT, json.dumps(asdict(spent)))


def start(config: Config, folder: Path, *, model: str, weights: str, resume: Checkpoint | None) -> int:
    """The run, on a cluster or in this process, and what it tells at its end. The exit status."""
    with session(config.cluster):
        outcome = asyncio.run(run(config, folder, model=model, weights=weights, resume=resume))
    _conclude(config, folder, outcome)
    return 0


async def run(config: Config, folder: Path, *, model: str, weights: str, resume: Checkpoint | None) -> Outcome:
    """Place the system, play the run in `folder`, end every part. Raises what ended it early, save a wish to stop."""
    begun, memory, spent = time.monotonic(), MemoryPeak(), Spent.read(folder)
    step = resume.step if resume else 0
    telemetry = Telemetry(folder, config.cluster.telemetry, total_steps=config.learner.num_steps, resumed_from=step)
    system = place(config, model, weights=weights, rendezvous=_rendezvous(folder))
    pools = tasks(config, "validation", most=config.curriculum.validation.num_tasks)
    keeper = Keeper(system, folder, telemetry, validation=[task for pool in pools.values() for task in pool])
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _stop, keeper, telemetry)
    sampling = asyncio.create_task(memory.watch())
    try:
        with keeper.phase("engines", "start"):
            await system.engines.ready()
        if resume:
            with keeper.phase("learner", "restore"):
                await keeper.restore(resume.path)
            save(config, folder)
        before, after = await _play(system, keeper, telemetry, folder=folder)
        if after is not None:
            form = CALL_FORMATS[config.actors.calls].form
            export(await system.learner.publish(), Path(model), folder / "model", call_form=form)
        _write_curriculum(folder, await system.curriculum.story())
        return Outcome(before, after)
    finally:
        sampling.cancel()
        spent.more(folder, wall_s=time.monotonic() - begun, peak_gb=memory.peak_gb)
        with suppress(Exception):
            await asyncio.wait_for(system.engines.close(), 10)
        keeper.close()
        telemetry.close()


async def _play(system: System, keeper: Keeper, telemetry: Telemetry, *, folder: Path) -> tuple[Levels, Levels | None]:
    config = system.config.cluster
    pools = tasks(system.config, "test", most=config.num_test_tasks) if config.num_test_tasks else {}
    test = [task for pool in pools.values() for task in pool]
    kept, before = folder / "before.json", {}
    try:
        if kept.exists():
            before = {level: LevelResult(**result) for level, result in json.loads(kept.read_text()).items()}
        elif keeper.step == 0 and config.test_before:
            before = await keeper.evaluate(test, split="test")
            kept.write_text(json.dumps({level: asdict(result) for level, result in before.items()}))
        watching = asyncio.create_task(watch(keeper, telemetry, stall_s=config.stall_s))
        await _first(asyncio.create_task(train(system, keeper)), watching)
        await keeper.checkpoint()
        return before, await keeper.evaluate(test, split="test")
    except* Stopped:
        await keeper.checkpoint()
    return before, None


async def _first(work: asyncio.Task[None], watching: asyncio.Task[None]) -> None:
    """The end of `work`, unless the watchdog ends it."""
    try:
        done, _ = await asyncio.wait((work, watching), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in (work, watching):
            task.cancel()


def _stop(keeper: Keeper, telemetry: Telemetry) -> None:
    if keeper.is_stopping:
        os._exit(130)  # asked twice: leave at once, what is on disk is whole
    telemetry.note("stopping after this step; once more to leave at once")
    keeper.stop()


def _rendezvous(folder: Path) -> str:
    """Where the learner's ranks meet: a file of this process's own, in a folder that all of them see."""
    path = folder / f".rendezvous-{os.getpid()}"
    path.unlink(missing_ok=True)
    return f"file://{path}"


def _write_curriculum(folder: Path, story: object) -> None:
    (folder / "curriculum.json").write_text(json.dumps(asdict(story), indent=1))  # type: ignore[call-overload]


def _conclude(config: Config, folder: Path, outcome: Outcome) -> None:
    """Tell before and after per level, and write summary.json and the report."""
    if outcome.after is None:
        has_checkpoint = any((folder / "checkpoints").glob("step-*"))
        again = f"--resume {folder}" if has_checkpoint else f"{folder / 'config.yaml'}, since no step was done yet"
        print(f"stopped; go on with: tiltyard train {again}")
        return
    levels = {
        level: {
            "before": outcome.before[level].success if level in outcome.before else None,
            "after": result.success,
            "num_tasks": result.num_tasks,
            "solve_f1": [outcome.before[level].solve_f1 if level in outcome.before else None, result.solve_f1],
        }
        for level, result in outcome.after.items()
    }
    spent = Spent.read(folder)
    summary = {"levels": levels, "seed": config.seed, **asdict(spent)}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    print("held-out test tasks, greedy, no hints:")
    for level, row in levels.items():
        before = "   -" if row["before"] is None else f"{row['before']:4.0%}"
        first, last = ("-" if one is None else f"{one:.2f}" for one in row["solve_f1"])
        print(f"  level {level}: {before} -> {row['after']:4.0%}  ({row['num_tasks']} tasks)   Solve-F1 {first} -> {last}")
    print(f"{spent.wall_s:.0f} s, at most {spent.peak_memory_gb:.1f} GB; report: {write_report(folder)}")
