"""One episode: messages to tokens, an action, tokens to a message, the environment's answer, until it ends."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import TypeVar

from actors.engine import Completion, Engine, PromptTooLong, Sampling
from actors.renderer import Renderer
from envs.environment import Environment
from envs.types import Assignment, Author, Message, Observation, Stop, Task, Trajectory, Turn

HUNG = 0.6  # of an episode's time in one call: the engine's fault then, or that of whoever gave it too much to do
SHOWN = 80  # characters of an answer


class NotReplayed(ValueError):
    """A recorded action was answered otherwise than it was then: its state cannot be reached here."""


T = TypeVar("T")
Asked = TypeVar("Asked", Task, Message)


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends an episode that does not end by itself: assistant turns, tokens in all, seconds."""

    max_turns: int
    max_tokens: int
    deadline_s: float


class Rollout:
    """Plays one episode of an assignment. The machine's failures become `Stop.FAULT`; the policy's own are data."""

    def __init__(self, env: Environment, engine: Engine, renderer: Renderer, *, limits: Limits, is_quick: bool = False) -> None:
        self._env, self._engine, self._renderer, self._limits, self._is_quick = env, engine, renderer, limits, is_quick
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._turns: list[Turn] = []
        self._opening: tuple[Message, ...] = ()
        self._asked = 0.0  # since when an engine is waited for

    @property
    def num_action_tokens(self) -> int:
        """Sampled so far, whole turns alone."""
        return sum(len(turn.action) for turn in self._turns)

    async def __call__(self, assignment: Assignment, sampling: Sampling, *, trajectory_id: str) -> Trajectory:
        """The recorded episode, not yet rewarded. Raises NotReplayed where the assignment's start cannot be reached."""
        turns = self._turns
        started = time.monotonic()
        fault = ""
        clock = asyncio.timeout(self._limits.deadline_s)
        try:
            async with clock:
                stop = await self._play(assignment, sampling, turns=turns, session=trajectory_id)
        except TimeoutError as error:
            stop, fault = self._late(error, is_deadline=clock.expired())
        except PromptTooLong:
            stop = Stop.MAX_TOKENS
        except NotReplayed:
            raise
        except Exception as error:  # the one border where an episode's fault is caught and classified
            stop, fault = Stop.FAULT, f"{type(error).__name__}: {error}"
        finally:
            self._env.close()
        seconds = time.monotonic() - started
        return Trajectory(
            trajectory_id,
            assignment.task.id,
            tuple(turns),
            stop,
            seconds=seconds,
            spent=dict(self._spent),
            fault=fault,
            opening=self._opening,
        )

    def _late(self, error: TimeoutError, *, is_deadline: bool) -> tuple[Stop, str]:
        """An episode that went on for too long is the policy's doing; a time-out of the tools or of an engine is not."""
        waited = time.monotonic() - self._asked if self._asked else 0.0
        if not is_deadline:
            return Stop.FAULT, f"{type(error).__name__}: {error}"
        if waited > HUNG * self._limits.deadline_s:
            return Stop.FAULT, (
                f"no engine answered for {waited:.0f} s of an episode's {self._limits.deadline_s:g}; where engines are only "
                "slow, lower actors.max_open_groups or raise actors.deadline_s"
            )
        return Stop.DEADLINE, ""

    async def _play(self, assignment: Assignment, sampling: Sampling, *, turns: list[Turn], session: str) -> Stop:
        task = assignment.task
        opening = await self._ask(self._env.reset, task)
        self._opening = opening.messages if opening.messages != task.messages else ()
        context = self._renderer.open(opening.messages, task.tools)
        tokens: list[int] = []
        begun = len(assignment.start)
        most = begun + assignment.max_turns if assignment.max_turns else max(begun, self._limits.max_turns)
        for number in range(most):
            tokens.extend(context)
            if number < begun:
                turn = await self._replay(context, assignment, number)
                if len(tokens) + len(turn.action) > self._limits.max_tokens:
                    return _no_room(assignment, number, self._limits)
            elif len(tokens) + sampling.max_tokens > self._limits.max_tokens:
                return Stop.MAX_TOKENS
            else:
                self._asked = time.monotonic()
                sampled = self._engine.generate(tokens, _at(sampling, number), session=session)
                completion = await self._timed("engine", sampled)
                self._asked = 0.0
                turn = await self._turn(context, completion, sampling.temperature)
            turns.append(turn)
            tokens.extend(turn.action)
            if turn.observation.done:
                return Stop.DONE
            context = self._renderer.extend(turn.action, turn.observation.messages)
        return Stop.MAX_TURNS

    async def _turn(self, context: Sequence[int], completion: Completion, temperature: float) -> Turn:
        message = self._renderer.parse(completion.tokens, is_cut=completion.finish == "length")
        observation = await self._step(message)
        sampled = (completion.tokens, completion.logprobs, completion.versions)
        return Turn(tuple(context), *sampled, message, observation, temperature=temperature)

    async def _replay(self, context: Sequence[int], assignment: Assignment, number: int) -> Turn:
        message = assignment.start[number]
        observation = await self._step(message)
        if assignment.expected and not assignment.augmentation and observation.messages != assignment.expected[number]:
            raise NotReplayed(_difference(assignment, number, observation))
        action = self._renderer.act(message)
        return Turn(tuple(context), action, (0.0,) * len(action), (), message, observation, Author.EXPERT)

    async def _step(self, message: Message) -> Observation:
        return await self._ask(self._env.step, message)

    async def _ask(self, method: Callable[[Asked], Observation], asked: Asked) -> Observation:
        """Call the environment: in a thread, where it may keep others waiting."""
        if not self._is_quick:
            return await self._timed("environment", asyncio.to_thread(method, asked))
        begun = time.monotonic()
        observation = method(asked)
        self._spent["environment"] += time.monotonic() - begun
        return observation

    async def _timed(self, what: str, work: Awaitable[T]) -> T:
        begun = time.monotonic()
        try:
            return await work
        finally:
            self._spent[what] += time.monotonic() - begun


def _difference(assignment: Assignment, number: int, observation: Observation) -> str:
    was, now = ("\n".join(one.content for one in messages) for messages in (assignment.expected[number], observation.messages))
    at = max(0, len(commonprefix([was, now])) - SHOWN // 2)
    return (
        f"expert {assignment.expert} of task {assignment.task.id} does not replay: its action {number + 1} was answered "
        f"{was[at : at + SHOWN]!r} and now is {now[at : at + SHOWN]!r}; it is left out. Record it anew with tiltyard experts"
    )


def _no_room(assignment: Assignment, number: int, limits: Limits) -> Stop:
    """The replayed message itself does not fit."""
    if not assignment.expert:
        return Stop.MAX_TOKENS
    raise NotReplayed(
        f"expert {assignment.expert} of task {assignment.task.id} is left out: its action {number + 1} ends beyond "
        f"{limits.max_tokens} tokens; raise actors.engine.max_model_len where it shall be learnt from"
    )


def _at(sampling: Sampling, turn: int) -> Sampling:
    """Each turn draws from a seed of its own, so that an episode can be sampled again alike."""
    return sampling if sampling.seed is None else replace(sampling, seed=(sampling.seed + 7919 * turn) % 2**31)
