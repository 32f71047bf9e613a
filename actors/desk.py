"""Many calls of an engine in few messages: what a busy caller asks within a moment travels together, as do the answers.

A message between processes costs the two of them a millisecond of work, whatever is in it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from uuid import uuid4

from actors.engine import Completion, Engine, EngineStats, Sampling
from learner.weights import Weights

MOMENT_S = 0.02  # between two messages the same way; the first after a pause goes at once


@dataclass(frozen=True, slots=True)
class Request:
    """A call of `generate`; `number` is the caller's own."""

    number: int
    tokens: tuple[int, ...]
    sampling: Sampling
    session: str


@dataclass(frozen=True, slots=True)
class Answer:
    number: int
    result: Completion | Exception


class _Box:
    """One caller's answers that it has not fetched yet."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.is_filled = asyncio.Event()
        self.emptied = 0.0


class Desk:
    """Base of an engine that lives in a process of its own: takes requests by the batch, hands out what is done."""

    def __init__(self) -> None:
        self._boxes: dict[str, _Box] = {}
        self._calls: dict[str, set[asyncio.Task[None]]] = {}  # by session

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        raise NotImplementedError

    async def forget(self, session: str) -> None:
        raise NotImplementedError

    async def submit(self, caller: str, requests: Sequence[Request], ended: Sequence[str]) -> None:
        """Begin these requests, and forget the sessions that have ended: nobody waits for what they still ask."""
        box = self._boxes.setdefault(caller, _Box())
        for session in ended:
            for call in self._calls.pop(session, ()):
                call.cancel()
            await self.forget(session)
        for request in requests:
            call = asyncio.create_task(self._answer(request, box))
            self._calls.setdefault(request.session, set()).add(call)
            call.add_done_callback(partial(self._done, request.session))

    async def collect(self, caller: str) -> list[Answer]:
        """The caller's answers since the last time, once there are any."""
        box = self._boxes.setdefault(caller, _Box())
        await box.is_filled.wait()
        await asyncio.sleep(max(0.0, box.emptied + MOMENT_S - time.monotonic()))
        answers, box.answers, box.emptied = box.answers, [], time.monotonic()
        box.is_filled.clear()
        return answers

    def _done(self, session: str, call: asyncio.Task[None]) -> None:
        calls = self._calls.get(session, set())
        calls.discard(call)
        if not calls:
            self._calls.pop(session, None)

    async def _answer(self, request: Request, box: _Box) -> None:
        try:
            result = await self.generate(request.tokens, request.sampling, session=request.session)
        except Exception as error:
            result = error
        box.answers.append(Answer(request.number, result))
        box.is_filled.set()


class Served(Engine, Protocol):
    """An engine with a desk, or a proxy of one."""

    async def submit(self, caller: str, requests: Sequence[Request], ended: Sequence[str]) -> None: ...
    async def collect(self, caller: str) -> list[Answer]: ...


class Caller:
    """The Engine that a process uses in place of one elsewhere. Travels to that process before its first call."""

    def __init__(self, engine: Served) -> None:
        self._engine, self._name = engine, ""
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Completion]] = {}
        self._requests: list[Request] = []
        self._ended: list[str] = []
        self._sending: asyncio.Task[None] | None = None
        self._collecting: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        await self._engine.ready()

    async def load(self, weights: Weights) -> None:
        await self._engine.load(weights)

    async def stats(self) -> EngineStats:
        return await self._engine.stats()

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        """As the engine's own; whatever ends the engine's process is raised to all who wait."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._requests.append(Request(number, tuple(tokens), sampling, session))
        self._send_soon()
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.create_task(self._collect())
        try:
            return await answer
        except asyncio.CancelledError:
            self._requests = [request for request in self._requests if request.number != number]
            raise
        finally:
            del self._waiting[number]

    async def forget(self, session: str) -> None:
        """Told with the next requests, or in a moment; a request of it that still runs is given up."""
        self._ended.append(session)
        self._send_soon()

    def _send_soon(self) -> None:
        if self._sending is None or self._sending.done():
            self._name = self._name or uuid4().hex
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._requests or self._ended:
            requests, self._requests = self._requests, []
            ended, self._ended = self._ended, []
            try:
                await self._engine.submit(self._name, requests, ended)
            except Exception as error:
                self._fail(error, [request.number for request in requests])
            await asyncio.sleep(MOMENT_S)

    async def _collect(self) -> None:
        while self._waiting:
            try:
                answers = await self._engine.collect(self._name)
            except Exception as error:
                self._fail(error, list(self._waiting))
                return
            for answer in answers:
                waiting = self._waiting.get(answer.number)  # none where a deadline passed meanwhile
                if waiting is None or waiting.done():
                    continue
                if isinstance(answer.result, Exception):
                    waiting.set_exception(answer.result)
                else:
                    waiting.set_result(answer.result)

    def _fail(self, error: Exception, numbers: Sequence[int]) -> None:
        for number in numbers:
            if number in self._waiting and not self._waiting[number].done():
                self._waiting[number].set_exception(error)
