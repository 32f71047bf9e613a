"""Many engines behind the Engine protocol: a session stays where its prefix is cached; one that fails is replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from actors.desk import Desk
from actors.engine import Completion, Engine, EngineError, EngineStats, PromptTooLong, Sampling
from learner.weights import Weights

log = logging.getLogger(__name__)
MAX_GAP = 16  # sessions that an engine may have more than the idlest for the sake of a prompt in its cache
MAX_PROMPTS = 10_000
PAUSES_S = (2.0, 20.0)  # before another try to bring an engine
STATS_S = 5.0  # seconds in which an engine tells of itself, or is left out


class WeightsRefused(ValueError):
    """An artefact did not verify; the engine was not touched and goes on serving what it served."""


@dataclass(frozen=True)
class Deadlines:
    """Seconds that one call of an engine may take; a respawn includes the loading of the newest weights."""

    generate_s: float = 240.0
    load_s: float = 90.0
    respawn_s: float = 300.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"actors.deadlines.{name} is {value}; it must be above 0")


class _Place:
    """Where an engine lives: the engine, its sessions, and the task that brings the next one."""

    def __init__(self, index: int, engine: Engine) -> None:
        self.index = index
        self.engine: Engine | None = engine
        self.sessions: set[str] = set()
        self.respawn: asyncio.Task[None] | None = None
        self.fault = ""

    @property
    def is_coming(self) -> bool:
        return self.respawn is not None and not self.respawn.done()


class EnginePool(Desk):
    """An Engine made of engines. `respawn(index)` ends what is left of that engine and answers with a new one."""

    def __init__(
        self,
        engines: Sequence[Engine],
        respawn: Callable[[int], Awaitable[Engine]],
        *,
        deadlines: Deadlines | None = None,
    ) -> None:
        if not engines:
            raise ValueError("a pool was given 0 engines; set actors.num_engines to at least 1")
        super().__init__()
        self._places = [_Place(index, engine) for index, engine in enumerate(engines)]
        self._respawn, self._deadlines = respawn, deadlines or Deadlines()
        self._homes: dict[str, _Place] = {}
        self._prompts: dict[int, _Place] = {}
        self._weights: Weights | None = None
        self._loading = asyncio.Lock()
        self.num_replaced = 0

    @property
    def num_serving(self) -> int:
        return len(self._serving())

    async def ready(self) -> None:
        """Wait until every engine serves. Raises what the first that cannot says, TimeoutError after `respawn_s`."""
        async with asyncio.timeout(self._deadlines.respawn_s):
            await asyncio.gather(*(place.engine.ready() for place in self._places if place.engine is not None))

    async def generate(self, tokens: Sequence[int], sampling: Sampling, *, session: str) -> Completion:
        """Sample on the session's engine, and once more on another where that one failed; EngineError after that."""
        fault = ""
        for _ in range(2):
            place, engine = await self._home(session, tokens)
            try:
                async with asyncio.timeout(self._deadlines.generate_s):
                    return await engine.generate(tokens, sampling, session=session)
            except PromptTooLong:
                raise
            except asyncio.CancelledError:
                await engine.forget(session)  # it need not go on
                raise
            except Exception as error:
                fault = _describe(error)
                self._replace(place, engine, fault=fault)
        raise EngineError(f"two engines failed on {session!r}, the last with {fault}")

    async def load(self, weights: Weights) -> None:
        """Load everywhere at once. An engine that fails is replaced; EngineError only where none is left.

        Raises WeightsRefused where every engine refused the artefact: then all serve on what they served.
        """
        async with self._loading:
            former, self._weights = self._weights, weights
            self._revive()
            served = [(place, place.engine) for place in self._places if place.engine is not None]
            errors = await asyncio.gather(*(self._load(engine, weights) for _, engine in served))
            refusals = [error for error in errors if isinstance(error, WeightsRefused)]
            if refusals and len(refusals) == len(served):
                self._weights = former
                raise refusals[0]
            for (place, engine), error in zip(served, errors, strict=True):
                if error is not None:
                    self._replace(place, engine, fault=_describe(error))
            await self._any_serving()

    async def forget(self, session: str) -> None:
        """The trajectory has ended: its place counts no longer."""
        place = self._homes.pop(session, None)
        if place is not None:
            place.sessions.discard(session)

    async def stats(self) -> EngineStats:
        """Of all engines that answer: sums, the fullest cache, the oldest version."""
        engines = [place.engine for place in self._serving() if place.engine is not None]
        asked = (asyncio.wait_for(engine.stats(), STATS_S) for engine in engines)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found = [answer for answer in answers if isinstance(answer, EngineStats)]  # one that fails is found out elsewhere
        return EngineStats(
            running=sum(one.running for one in found),
            waiting=sum(one.waiting for one in found),
            tokens=sum(one.tokens for one in found),
            version=min((one.version for one in found), default=0),
            kv_usage=max((one.kv_usage for one in found), default=0.0),
            preemptions=sum(one.preemptions for one in found),
        )

    async def close(self) -> None:
        """Stop bringing engines; the engines themselves belong to whoever made them."""
        for place in self._places:
            if place.respawn is not None:
                place.respawn.cancel()

    def _serving(self) -> list[_Place]:
        return [place for place in self._places if place.engine is not None]

    async def _home(self, session: str, tokens: Sequence[int]) -> tuple[_Place, Engine]:
        place = self._homes.get(session)
        if place is None or place.engine is None:
            place = self._choose(await self._any_serving(), hash(tuple(tokens)))
            await self.forget(session)
            self._homes[session] = place
            place.sessions.add(session)
        assert place.engine is not None
        return place, place.engine

    def _choose(self, serving: Sequence[_Place], prompt: int) -> _Place:
        """Where the same prompt went before, so that siblings share one prefill, unless others have far less to do."""
        idlest = min(serving, key=lambda place: len(place.sessions))
        before = self._prompts.pop(prompt, idlest)
        chosen = before if before in serving and len(before.sessions) < len(idlest.sessions) + MAX_GAP else idlest
        self._prompts[prompt] = chosen  # at the end: the first is the one least recently used
        if len(self._prompts) > MAX_PROMPTS:
            del self._prompts[next(iter(self._prompts))]
        return chosen

    async def _any_serving(self) -> list[_Place]:
        """The places with an engine, once there is one; EngineError where none is left or coming."""
        while not (serving := self._serving()):
            coming = [place.respawn for place in self._places if place.respawn is not None and place.is_coming]
            if not coming:
                faults = "; ".join(f"engine {place.index}: {place.fault}" for place in self._places)
                raise EngineError(f"no engine is left: {faults}")
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
        return serving

    async def _load(self, engine: Engine, weights: Weights) -> Exception | None:
        try:
            async with asyncio.timeout(self._deadlines.load_s):
                await engine.load(weights)
        except Exception as error:
            return error
        return None

    def _replace(self, place: _Place, engine: Engine, *, fault: str) -> None:
        if place.engine is not engine:
            return  # another call that failed on it was first
        log.warning("engine %d is replaced after: %s", place.index, fault)
        place.engine, place.fault = None, fault
        for session in place.sessions:
            del self._homes[session]
        place.sessions.clear()
        place.respawn = asyncio.create_task(self._bring(place))

    def _revive(self) -> None:
        """Try again where an earlier respawn failed."""
        for place in self._places:
            if place.engine is None and not place.is_coming:
                place.respawn = asyncio.create_task(self._bring(place))

    async def _bring(self, place: _Place) -> None:
        """Some tries, since without an engine no group comes, hence no load that would revive it."""
        self.num_replaced += 1
        for pause in (*PAUSES_S, None):
            try:
                place.engine = await self._successor(place.index)
                return
            except Exception as error:
                place.fault = f"{place.fault}, then its successor: {_describe(error)}"
            if pause is not None:
                await asyncio.sleep(pause)

    async def _successor(self, index: int) -> Engine:
        async with asyncio.timeout(self._deadlines.respawn_s):
            engine = await self._respawn(index)
            loaded: Weights | None = None
            # A publication may come while an older one loads; nothing older than the newest is ever served.
            while loaded is not self._weights and (newest := self._weights) is not None:
                await engine.load(newest)
                loaded = newest
            return engine


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
