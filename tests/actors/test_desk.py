import asyncio
from collections.abc import Sequence

import pytest

from actors.desk import Answer, Caller, Desk, Request
from actors.engine import Completion, EngineError, PromptTooLong, Sampling


class Office(Desk):
    """Answers a prompt with its first token, after as many hundredths of a second; counts its messages."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.ended: list[str] = []
        self.num_collected = self.running = 0
        self.is_gone = False

    async def generate(self, tokens, sampling, *, session) -> Completion:
        self.running += 1
        try:
            await asyncio.sleep(tokens[0] / 100)
        finally:
            self.running -= 1
        if session == "long":
            raise PromptTooLong("too long")
        return Completion((tokens[0],), (0.0,), "stop", ())

    async def forget(self, session: str) -> None:
        self.ended.append(session)

    async def submit(self, caller: str, requests: Sequence[Request], ended: Sequence[str]) -> None:
        if self.is_gone:
            raise EngineError("the process has ended")
        self.batches.append(len(requests))
        await super().submit(caller, requests, ended)

    async def collect(self, caller: str) -> list[Answer]:
        self.num_collected += 1
        return await super().collect(caller)

    async def ready(self) -> None: ...
    async def load(self, weights) -> None: ...


async def ask(caller: Caller, first: int, session: str = "s") -> int:
    return (await caller.generate([first, 7], Sampling(), session=session)).tokens[0]


async def test_each_caller_gets_its_own_answers_as_they_come():
    office = Office()
    here, there = Caller(office), Caller(office)
    order: list[int] = []

    async def note(caller: Caller, first: int) -> None:
        assert await ask(caller, first) == first
        order.append(first)

    await asyncio.gather(*(note(caller, first) for caller, first in [(here, 30), (there, 0), (here, 15)]))
    assert order == [0, 15, 30]


async def test_what_is_asked_within_a_moment_travels_together():
    office = Office()
    caller = Caller(office)
    assert await asyncio.gather(*(ask(caller, number % 3) for number in range(60))) == [number % 3 for number in range(60)]
    assert office.batches == [60] and office.num_collected <= 6


async def test_errors_keep_their_kind():
    caller = Caller(Office())
    found = await asyncio.gather(ask(caller, 0), ask(caller, 0, "long"), return_exceptions=True)
    assert found[0] == 0 and isinstance(found[1], PromptTooLong)


async def test_a_caller_that_gave_up_disturbs_nobody():
    caller = Caller(Office())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await ask(caller, 10)
    assert await asyncio.gather(ask(caller, 20), ask(caller, 0)) == [20, 0]


@pytest.mark.parametrize("when", ["asking", "waiting"])
async def test_all_who_wait_hear_of_a_desk_that_is_gone(when):
    office = Office()
    caller = Caller(office)
    if when == "asking":
        office.is_gone = True
    else:
        office.collect = lost  # type: ignore[method-assign]
    found = await asyncio.gather(*(ask(caller, 50) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [EngineError] * 3


async def lost(caller: str) -> list[Answer]:
    raise EngineError("the process has ended")


async def test_ended_sessions_are_told():
    office = Office()
    caller = Caller(office)
    await asyncio.gather(*(caller.forget(f"s{number}") for number in range(5)))
    await asyncio.sleep(0.05)
    assert office.ended == [f"s{number}" for number in range(5)] and office.batches == [0]


async def test_what_an_ended_session_still_asks_is_given_up():
    office = Office()
    caller = Caller(office)
    call = asyncio.create_task(ask(caller, 1000, "slow"))
    await asyncio.sleep(0.05)
    assert office.running == 1
    call.cancel()
    await caller.forget("slow")
    await asyncio.sleep(0.05)
    assert office.running == 0 and office.ended == ["slow"]
    assert await ask(caller, 0) == 0


async def test_a_request_given_up_before_it_was_sent_is_never_begun():
    office = Office()
    caller = Caller(office)
    await ask(caller, 0)  # the next message waits for its moment
    call = asyncio.create_task(ask(caller, 1000, "slow"))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0.05)
    assert sum(office.batches) == 1 and office.running == 0
