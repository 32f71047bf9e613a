"""What outlives a step: ledger, store, validation, checkpoints and reports, so that the loop need not speak of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from actors.env_actor import GroupFault
from cluster.breakdown import breakdown
from cluster.codec import dumps, loads
from cluster.evaluate import by_level, evaluate, fault_of, is_failed
from cluster.ledger import End, Ledger
from cluster.metrics import LevelResult, StepReport
from cluster.pace import Pace
from cluster.phases import PhaseFile
from cluster.serving import Serving
from cluster.store import Store
from cluster.summary import entropy, summarise
from cluster.system import System
from cluster.telemetry import Telemetry
from curriculum.gate import StepFacts
from curriculum.memory import read
from envs.types import Assignment, Group, Task
from learner import checkpoint
from learner.buffer import BufferState, Verdict
from learner.weights import Weights

T = TypeVar("T")
ENDS = {Verdict.FILTERED: End.FILTERED, Verdict.STALE: End.STALE}
MAX_FAULTS_IN_A_ROW = 8


class Stopped(Exception):
    """The run was asked to stop, and stands between two steps."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The control plane between two steps: what a checkpoint keeps beside the learner."""

    step: int
    next_id: int
    curriculum: str
    buffer: BufferState
    open: tuple[Assignment, ...]  # handed out, not finished: issued again after a resume


class Keeper:
    """Keeps the books of one run folder. `step` is the last optimiser step done."""

    def __init__(self, system: System, run: Path, telemetry: Telemetry, *, validation: Sequence[Task]) -> None:
        self._system, self._run, self._telemetry, self._validation = system, run, telemetry, tuple(validation)
        self._ledger, self._store, self._phases = Ledger(run / "ledger.jsonl"), Store(run), PhaseFile(run)
        self.serving, self.pace = Serving(self._serve), Pace(system.config.actors.max_open_groups)
        self._stop = asyncio.Event()
        self._open: dict[int, Assignment] = {}
        self._issued: dict[int, float] = {}
        self._again: list[Assignment] = []
        self._finished: list[Group] = []
        self._seconds: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._snapshot: Snapshot | None = None
        self._faults = self._saved = self.step = 0
        self._begun = self.progressed = time.monotonic()
        self._loaded = 0.0  # when the engines' last load ended; inf while one goes on

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the run to stop before its next step."""
        self._stop.set()

    async def unless_stopped(self, work: Awaitable[T]) -> T:
        """The result of `work`, or Stopped as soon as the run is asked to stop."""
        job, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((job, stop), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                raise Stopped
            return await job
        finally:
            job.cancel()
            stop.cancel()

    @contextmanager
    def phase(self, part: str, what: str) -> Iterator[None]:
        """Time a part of the step, and tell who waits for what."""
        self._telemetry.waiting(part, what)
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds[what] += self._phases.add(part, what, begun=begun, step=self.step)
            self._telemetry.waiting(part, "")
            self.progressed = time.monotonic()

    @contextmanager
    def waiting_for_groups(self) -> Iterator[None]:
        """The learner's phase "generate", apart from "load": as long as engines load, groups wait for them."""
        begun = time.monotonic()
        with self.phase("learner", "generate"):
            yield
        loading = max(0.0, min(self._loaded, time.monotonic()) - begun)
        self._seconds["generate"] -= loading
        self._seconds["load"] += loading

    async def assign(self) -> Assignment:
        """The next assignment: one that a resume or a fault left over, else the curriculum's."""
        if self._again:
            assignment = self._again.pop(0)
        else:
            assignment = await self._system.curriculum.next()
            self._ledger.admit(assignment, self._system.buffer.version)
        self._open[assignment.id], self._issued[assignment.id] = assignment, time.monotonic()
        return assignment

    def finish(self, group: Group, verdict: Verdict) -> None:
        """A group was handed in, and stored before; the ledger learns what did not become part of a batch."""
        assignment = group.assignment
        self._open.pop(assignment.id)
        words = f"assignment {assignment.id}, task {assignment.task.id}, {verdict.value}"
        self._phases.add("group", assignment.task.level, begun=self._issued.pop(assignment.id), step=self.step, detail=words)
        self._finished.append(group)
        for fault in dict.fromkeys(trajectory.fault for trajectory in group.trajectories if trajectory.fault):
            self._telemetry.note(fault)
        self._faults = 0
        self._verdicts[verdict.value] += 1
        self.progressed = time.monotonic()
        if verdict in ENDS:
            self._ledger.end(assignment.id, ENDS[verdict])
        ready, size = self._system.buffer.num_ready, self._system.config.learner.groups_per_batch
        self._telemetry.waiting("learner", f"groups {min(ready, size)}/{size}" if ready < size else "")

    def store(self, group: Group) -> None:
        self._store.put(group, split="train", step=self.step)

    async def reissue(self, assignment: Assignment, fault: GroupFault) -> None:
        """The machine failed a group: its assignment ends, and the same task is issued under a new id."""
        self._faults += 1
        reason = str(fault).splitlines()[-1]  # a fault that crossed Ray brings its trace along
        self._telemetry.note(f"fault, issued again: {reason}")
        if self._faults >= MAX_FAULTS_IN_A_ROW:
            raise RuntimeError(f"{self._faults} groups in a row met a fault; the last: {reason}") from fault
        again = await self._system.curriculum.reissue(assignment)
        self._open.pop(assignment.id)
        self._issued.pop(assignment.id)
        self._ledger.end(assignment.id, End.REISSUED)
        self._ledger.admit(again, self._system.buffer.version)
        self._again.append(again)

    def drop(self, stale: Sequence[Group]) -> None:
        """These groups grew too old in the buffer."""
        for group in stale:
            self._ledger.end(group.assignment.id, End.STALE)
            self._verdicts[Verdict.STALE.value] += 1

    async def step_done(self, step: int, groups: Sequence[Group], *, metrics: Mapping[str, float]) -> None:
        """Books for a step: ledger, validation, the curriculum's decision, report, checkpoint."""
        self.step = step
        for group in groups:
            self._ledger.end(group.assignment.id, End.TRAINED, step)
        try:
            levels = await self._validate(step)
        except Stopped:  # the step is done, and its books with it; the loop stops before the next
            levels = {}
        reward = sum(result.reward for result in levels.values()) / len(levels) if levels else None
        await self._report(step, groups, metrics)
        stage = (await self._system.curriculum.status()).stage
        facts = StepFacts(step, stage, metrics.get("learner/grad_norm", 0.0), reward, entropy(groups))
        decision = await self._system.curriculum.advance(facts)
        if decision.advance:
            after = (await self._system.curriculum.status()).stage
            self._telemetry.note(f"step {step}: from stage {stage} to {after}: {decision.reason}")
        await self._snap()
        if step % self._system.config.learner.checkpoint_every == 0:
            await self.checkpoint()

    async def evaluate(self, tasks: Sequence[Task], *, split: str) -> Mapping[str, LevelResult]:
        """Greedy results by level, every trajectory stored."""
        with self.phase("actors", "evaluate"):
            groups = await self.unless_stopped(evaluate(self._system.actors, tasks, stage=split))
            for group in groups:
                self._store.put(group, split=split, step=self.step)
        for group in filter(is_failed, groups):
            self._telemetry.note(f"left out of the evaluation, a fault: {fault_of(group)}")
        return by_level(groups)

    async def checkpoint(self) -> None:
        """Write what a resume needs, atomically; nothing where no step was done since the last, or one only half."""
        if self._snapshot is None or self._saved == self._snapshot.step or self._snapshot.step != self.step:
            return
        with self.phase("learner", "checkpoint"):
            self._ledger.sync()
            folder, keep = self._run / "checkpoints", self._system.config.learner.keep_checkpoints
            with checkpoint.writing(folder, self._snapshot.step, keep=keep) as pending:
                await self._system.learner.save(str(pending))
                (pending / "run.json").write_text(dumps(self._snapshot))
            self._store.compact()
        self._saved = self._snapshot.step
        self._telemetry.note(f"checkpoint of step {self._saved}")

    async def restore(self, folder: Path) -> None:
        """Go on from a checkpoint: the learner and engines have its weights, the books void what came after it."""
        snapshot = loads(Snapshot, (folder / "run.json").read_text())
        await self._system.learner.load(str(folder))
        await self._system.curriculum.restore(snapshot.curriculum)
        self._system.buffer.restore(replace(snapshot.buffer, version=snapshot.step))
        await self._system.engines.load(await self._system.learner.publish())
        still_open = {one.id for one in snapshot.open} | {group.assignment.id for group in snapshot.buffer.groups}
        self._ledger.resume(snapshot.step, next_id=snapshot.next_id, still_open=still_open)
        self._again = list(snapshot.open)
        self.drop(await self._system.buffer.advance(snapshot.step))
        self._snapshot, self.step, self._saved = snapshot, snapshot.step, snapshot.step

    def close(self) -> None:
        self._ledger.sync()
        self._ledger.close()
        self._phases.close()
        self._store.compact()

    async def _serve(self, weights: Weights) -> None:
        """Every engine serves these weights when this returns; the learner goes on meanwhile."""
        self._telemetry.waiting("engines", "load")
        begun, self._loaded = time.monotonic(), math.inf
        await self._system.engines.load(weights)
        self._loaded = self.progressed = time.monotonic()
        self._phases.add("engines", "load", begun=begun, step=self.step, detail=f"version {weights.version}")
        self._telemetry.waiting("engines", "")
        await self._system.buffer.serve(weights.version)

    async def _validate(self, step: int) -> Mapping[str, LevelResult]:
        if step % self._system.config.curriculum.validation.every_steps:
            return {}
        with self.phase("learner", "load"):
            await self.serving.settled()
        levels = await self.evaluate(self._validation, split="validation")
        stage = (await self._system.curriculum.status()).stage
        self._telemetry.validation(step, stage, levels)
        return levels

    async def _snap(self) -> None:
        curriculum = await self._system.curriculum.state()
        next_id = read(curriculum).next_id  # of the same moment: what is handed out from here on is handed out again
        kept = tuple(assignment for key, assignment in sorted(self._open.items()) if key < next_id)
        again = tuple(assignment for assignment in self._again if assignment.id < next_id)
        buffer = self._system.buffer.state()
        ready = tuple(group for group in buffer.groups if group.assignment.id < next_id)
        self._snapshot = Snapshot(self.step, next_id, curriculum, replace(buffer, groups=ready), (*again, *kept))

    async def _report(self, step: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> None:
        status = await self._system.curriculum.status()
        seconds, self._begun = time.monotonic() - self._begun, time.monotonic()
        books = {f"buffer/{name}": float(self._verdicts[name]) for name in ("filtered", "stale")}
        finished = [trajectory for group in self._finished for trajectory in group.trajectories]
        parts = breakdown(self._seconds, seconds, trajectories=finished, learner=metrics)
        acted = summarise(self._finished, groups, version=step - 1, seconds=seconds)
        stage = {"curriculum/stage_index": float(status.index)}
        merged = {**acted, **self.pace.metrics(), **books, **parts, **stage, **metrics}
        total = self._system.config.learner.num_steps
        self._telemetry.step(StepReport(step, total, step, status.stage, status.reason, seconds, merged))
        self._phases.flush()
        self._finished.clear()
        self._seconds.clear()
        self._verdicts.clear()
