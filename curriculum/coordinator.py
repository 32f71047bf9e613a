"""Hands out assignments, collects what became of them, and moves from stage to stage; every decision has its reason."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import cycle
from random import Random

from curriculum.config import CurriculumConfig, StageConfig
from curriculum.experts import NO_EXPERTS, Experts, Start, states, whole
from curriculum.gate import Decision, StepFacts, decide
from curriculum.memory import CurriculumStatus, Kind, Memory, Record, Seen, Story, read
from curriculum.sampler import Draw, Tally, frontier, next_level, uniform
from curriculum.stages import Stage, stages
from curriculum.temperature import next_temperature
from envs.types import Assignment, Group, Message, Stop, Task, Trajectory

log = logging.getLogger(__name__)

Oracle = Callable[[Task], Sequence[Message]]
LEAST_LEFT = 2  # messages: a call and the closing answer
BACK_AT = 0.5  # the success with which the next groups begin a message further from the end
LEAST_MIDWAY = 0.1  # of a stage's share: what is solved is still looked at now and then


class Coordinator:
    """What `next` hands out depends on the seed, the id and what `advance` committed, never on who observes when.

    Observations are only collected, and enter the tallies inside `advance`, in the order of their ids.
    """

    def __init__(
        self,
        config: CurriculumConfig,
        *,
        env: str,
        tasks: Mapping[str, Sequence[Task]],
        oracle: Oracle,
        seed: int,
        experts: Experts = NO_EXPERTS,
    ) -> None:
        self._stages, self._oracle, self._experts = stages(config, tasks, experts), oracle, experts
        self._index = {stage.config.name: at for at, stage in enumerate(self._stages)}
        first = self._stages[0].config.name
        self._drawing, self._references = asyncio.Lock(), dict[str, Sequence[Message]]()
        start = Record(0, first, Kind.STARTED, f"{first!r} is the first of {len(self._stages)} stages")
        self._memory = Memory(env, seed, first, steps={first: 0}, records=(start,))

    async def next(self) -> Assignment:
        async with self._drawing:
            while (task := self._awaits_reference()) is not None:
                self._references[task.id] = await self._reference(task)
            return self._next()

    def _next(self) -> Assignment:
        memory, stage = self._memory, self._stage
        level = next_level(stage.shares, memory.drawn)
        draw = self._draw(stage, level)
        drawn = {**memory.drawn, level: memory.drawn.get(level, 0) + 1}
        self._memory = replace(memory, next_id=memory.next_id + 1, drawn=drawn)
        config, share = stage.config, stage.shares[level]
        start = self._start(config, draw.task, memory.next_id)
        return Assignment(
            id=memory.next_id,
            task=draw.task,
            stage=config.name,
            augmentation=config.augmentation,
            reward=config.reward,
            group_size=config.group_size * max(1, len(start.depths)),
            start=start.messages,
            temperature=max(config.temperature, memory.temperature) if config.entropy else config.temperature,
            reason=f"stage {config.name!r}, level {level!r} (share {share:.2f}), {config.sampler}: {draw.reason}{start.words}",
            seed=assignment_seed(memory.seed, memory.next_id),
            max_turns=int(config.one_message),
            credit=config.credit,
            depths=start.depths,
            expected=start.answers,
            expert=start.expert,
        )

    async def reissue(self, assignment: Assignment) -> Assignment:
        """The same task under a new id, after the machine failed it."""
        new = self._memory.next_id
        self._memory = replace(self._memory, next_id=new + 1)
        reason = f"again, since a fault ended assignment {assignment.id}: {assignment.reason}"
        return replace(assignment, id=new, seed=assignment_seed(self._memory.seed, new), reason=reason)

    async def observe(self, group: Group) -> None:
        """Collect a group's successes; faulted siblings say nothing, but that an expert's state could not be reached."""
        assignment = group.assignment
        if not 0 <= assignment.id < self._memory.next_id:
            raise ValueError(f"assignment {assignment.id} was never handed out; the next id is {self._memory.next_id}")
        sound = [one for one in group.trajectories if one.stop is not Stop.FAULT]
        lost = assignment.expert if len(sound) < len(group.trajectories) else ""
        if not sound and not lost:
            return
        told = _told(assignment, group.trajectories)
        midway = assignment.task.level if assignment.start and not assignment.depths or assignment.max_turns else ""
        way = tuple(turn.message for turn in sound[0].turns if not turn.observation.done) if assignment.max_turns else ()
        seen = Seen(assignment.id, assignment.task.id, len(told), sum(one.success for one in told), midway, way, lost)
        others = tuple(other for other in self._memory.pending if other.id != seen.id)
        self._memory = replace(self._memory, pending=(*others, seen))

    async def advance(self, facts: StepFacts) -> Decision:
        """Call once after each optimiser step: commits what was observed, and moves to the next stage where due."""
        self._commit(facts)
        if self._memory.is_finished:
            return Decision(False, "the curriculum has finished; its last stage goes on until the run ends")
        config = self._stage.config
        decision = decide(self._memory.history, config.gate, min_steps=config.min_steps, max_steps=config.max_steps)
        if decision.advance:
            self._move(facts.step, decision.reason)
        return decision

    async def status(self) -> CurriculumStatus:
        memory, name = self._memory, self._memory.stage
        return CurriculumStatus(
            stage=name,
            index=self._index[name],
            step_in_stage=memory.steps[name],
            tried=len(memory.tallies),
            solved=sum(tally.solved > 0 for tally in memory.tallies.values()),
            reason=memory.records[-1].reason,
            is_finished=memory.is_finished,
        )

    async def story(self) -> Story:
        return Story(self._memory.records, self._memory.steps)

    async def state(self) -> str:
        """Everything, as JSON; `restore` of it makes the future the same."""
        return json.dumps(asdict(self._memory))

    async def restore(self, state: str) -> None:
        """Take over a `state`; ValueError where it is of another environment, seed or set of stages."""
        memory = read(state)
        if (memory.env, memory.seed) != (self._memory.env, self._memory.seed):
            raise ValueError(
                f"the saved curriculum is of environment {memory.env!r} and seed {memory.seed}, this run of "
                f"{self._memory.env!r} and {self._memory.seed}; resume with the saved configuration"
            )
        if memory.stage not in self._index:
            raise ValueError(f"the saved curriculum is in stage {memory.stage!r}; there are: {', '.join(self._index)}")
        # One that was recorded anew since then is another chance.
        lost = {id: digest for id, digest in memory.lost.items() if self._experts.digest(id) == digest}
        is_last = self._index[memory.stage] == len(self._stages) - 1  # stages may have been added
        self._memory = replace(memory, lost=lost, is_finished=memory.is_finished and is_last)

    @property
    def _stage(self) -> Stage:
        return self._stages[self._index[self._memory.stage]]

    def _draw(self, stage: Stage, level: str) -> Draw:
        memory, name, pool = self._memory, stage.config.name, self._pool(stage, level)
        if stage.config.sampler == "frontier":
            return frontier(pool, memory.tallies, key=f"{memory.seed}/{memory.next_id}")
        return uniform(pool, memory.drawn.get(level, 0), key=f"{memory.seed}/{name}/{level}")

    def _pool(self, stage: Stage, level: str) -> Sequence[Task]:
        """The level's tasks, without those whose experts were all lost, as long as any is left."""
        lost, pool = self._memory.lost, stage.tasks[level]
        if not lost or not stage.config.experts:
            return pool
        is_whole = stage.config.experts == "whole"
        return [task for task in pool if self._experts.usable(task.id, successful=is_whole, lost=lost)] or pool

    def _midway(self, config: StageConfig, level: str) -> float:
        """The stage's share, less what the policy solves from there already: such groups have no signal left."""
        tally = Tally() if config.backward else self._memory.midway.get(level, Tally())
        return config.midway * max(1.0 - tally.solved / max(tally.tried, 1), LEAST_MIDWAY)

    def _start(self, config: StageConfig, task: Task, id: int) -> Start:
        """A stage without experts and midway begins at the beginning."""
        if config.experts:
            usable = self._experts.usable(task.id, successful=config.experts == "whole", lost=self._memory.lost)
            if not usable:
                return Start(words=", from its beginning, since its experts were left out")
            expert = Random(f"{self._memory.seed}/{id}/expert").choice(usable)
            return whole(expert) if config.experts == "whole" else states(expert, config.num_states)
        rng = self._rng(id)
        if (
            rng.random() < self._midway(config, task.level)
            and (begun := self._cut(self._way(task), task.level, rng, config)).messages
        ):
            return begun
        own = self._own(task, id) if config.one_message else ()
        return Start(own, words=f", after {len(own)} of its own messages") if own else Start()

    def _rng(self, id: int) -> Random:
        return Random(f"{self._memory.seed}/{id}/midway")

    def _awaits_reference(self) -> Task | None:
        """The next assignment's task, where that begins on the reference's way and the reference is not known yet."""
        memory, stage = self._memory, self._stage
        level = next_level(stage.shares, memory.drawn)
        is_midway = not stage.config.experts and self._rng(memory.next_id).random() < self._midway(stage.config, level)
        if not is_midway:
            return None
        task = self._draw(stage, level).task
        has_expert = self._experts.usable(task.id, successful=True, lost=memory.lost)
        return None if has_expert or task.id in self._references else task

    async def _reference(self, task: Task) -> Sequence[Message]:
        """It may take its time to be found; a task without one is played from its beginning."""
        try:
            return tuple(await asyncio.to_thread(self._oracle, task))
        except Exception as error:  # the environment's: one start is lost to it, the run is not
            log.warning("no reference for %s: %s: %s", task.id, type(error).__name__, error)
            return ()

    def _way(self, task: Task) -> Start:
        """The first successful expert's, else the reference's."""
        usable = self._experts.usable(task.id, successful=True, lost=self._memory.lost)
        if not usable:
            return Start(tuple(self._references[task.id]), words="the reference's")
        return Start(usable[0].messages, (), usable[0].answers, usable[0].id, f"expert {usable[0].id}'s")

    def _cut(self, way: Start, level: str, rng: Random, config: StageConfig) -> Start:
        """A reverse curriculum (1707.05300): what comes last is learnt from states in which it is all that is left.

        At least one call and the closing answer are left to the policy; with `backward`, as many messages as it can do by now.
        """
        most = len(way.messages) - LEAST_LEFT
        if most < 1:
            return Start()
        left = self._memory.left.get(level, LEAST_LEFT)
        depth = len(way.messages) - left if config.backward else rng.randint(1, most)
        if depth < 1:
            return Start()
        words = f", after {depth} of {way.words} messages"
        return replace(way, messages=way.messages[:depth], answers=way.answers[:depth], words=words)

    def _own(self, task: Task, id: int) -> tuple[Message, ...]:
        """The messages up to one of the states on the way that the policy has come in this task so far."""
        way = self._memory.ways.get(task.id, ())
        return way[: Random(f"{self._memory.seed}/{id}/own").randint(0, len(way))]

    def _commit(self, facts: StepFacts) -> None:
        memory = self._memory
        if memory.history and facts.step <= memory.history[-1].step:
            raise ValueError(f"step {facts.step} is not after step {memory.history[-1].step}; tell each step once")
        tallies, midway, ways = dict(memory.tallies), dict(memory.midway), dict(memory.ways)
        lost = dict(memory.lost)
        for seen in sorted(memory.pending, key=lambda seen: seen.id):
            of, key = (midway, seen.midway) if seen.midway else (tallies, seen.task_id)
            if seen.tried:
                of[key] = of.get(key, Tally()).plus(seen.tried, seen.solved)
            if seen.way:
                ways[seen.task_id] = seen.way
            if seen.lost:
                lost[seen.lost] = self._experts.digest(seen.lost)
        steps = {**memory.steps, memory.stage: memory.steps[memory.stage] + 1}
        history = (*memory.history, facts)
        config, temperature = self._stage.config, memory.temperature
        if config.entropy:
            now = max(temperature, config.temperature)
            temperature = next_temperature(now, facts.entropy, target=config.entropy, lowest=config.temperature)
        self._memory = replace(
            memory,
            tallies=tallies,
            midway=midway,
            pending=(),
            history=history,
            steps=steps,
            temperature=temperature,
            ways=ways,
            lost=lost,
            left=self._further() if config.backward else memory.left,
        )

    def _further(self) -> Mapping[str, int]:
        """Where those that began midway mostly solved what was left, more is left to the next."""
        left = dict(self._memory.left)
        for level in {seen.midway for seen in self._memory.pending if seen.midway}:
            begun = [seen for seen in self._memory.pending if seen.midway == level]
            tried = sum(seen.tried for seen in begun)
            if tried and sum(seen.solved for seen in begun) >= BACK_AT * tried:
                now = left.get(level, LEAST_LEFT)
                left[level] = now + max(1, now // 4)
        return left

    def _move(self, step: int, reason: str) -> None:
        memory, index = self._memory, self._index[self._memory.stage] + 1
        if index == len(self._stages):
            record = Record(step, memory.stage, Kind.FINISHED, reason)
            self._memory = replace(memory, is_finished=True, records=(*memory.records, record))
            return
        name = self._stages[index].config.name
        record = Record(step, name, Kind.ADVANCED, f"left {memory.stage!r} after step {step}: {reason}")
        records, steps = (*memory.records, record), {**memory.steps, name: 0}
        self._memory = replace(memory, stage=name, drawn={}, history=(), steps=steps, records=records)


def _told(assignment: Assignment, siblings: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that tell what the policy can do: of simulations those from the beginning, of an expert alone none."""
    depths = cycle(assignment.depths or (0,))
    return [one for one, depth in zip(siblings, depths, strict=False) if one.stop is not Stop.FAULT and not depth]


def assignment_seed(seed: int, assignment_id: int) -> int:
    """31 bits that depend on nothing but the two, on any machine."""
    digest = blake2b(f"{seed}/{assignment_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF
