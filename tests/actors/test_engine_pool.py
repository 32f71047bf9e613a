import asyncio
import contextlib

import pytest

from actors import engine_pool
from actors.engine import Completion, EngineError, EngineStats, PromptTooLong, Sampling
from actors.engine_pool import MAX_GAP, Deadlines, EnginePool, WeightsRefused
from actors.scripted_engine import ScriptedEngine
from learner.weights import Weights

NEW = Weights(7, "nowhere", "abc")


class Machine(ScriptedEngine):
    """A scripted engine on a machine that can break: its action is its own number, so that one sees who answered."""

    def __init__(self, number: int) -> None:
        super().__init__(lambda tokens, session: [number], max_model_len=100)
        self.number, self.loads, self.calls = number, 0, 0
        self.forgotten: list[str] = []
        self.said = EngineStats()
        self.is_broken = self.is_hung = self.refuses = self.breaks_on_load = False

    async def generate(self, tokens, sampling, *, session) -> Completion:
        self.calls += 1
        await self._breakdown(self.is_broken)
        return await super().generate(tokens, sampling, session=session)

    async def load(self, weights) -> None:
        self.loads += 1
        if self.refuses:
            raise WeightsRefused(f"version {weights.version} is damaged")
        await self._breakdown(self.breaks_on_load)
        await super().load(weights)

    async def forget(self, session: str) -> None:
        self.forgotten.append(session)

    async def stats(self) -> EngineStats:
        await self._breakdown(self.is_broken)
        return self.said

    async def _breakdown(self, is_broken: bool) -> None:
        if is_broken:
            raise EngineError("the machine is broken")
        if self.is_hung:
            await asyncio.Event().wait()


class Yard:
    """Two machines, and as many more as `spares`, numbered from 100."""

    def __init__(self, *, spares: int = 0, deadlines: Deadlines | None = None) -> None:
        self.machines = [Machine(0), Machine(1)]
        self.spares = [Machine(100 + number) for number in range(spares)]
        self.asked: list[int] = []
        self.is_free = asyncio.Event()
        self.is_free.set()
        self.pool = EnginePool(self.machines, self.respawn, deadlines=deadlines)

    async def respawn(self, index: int) -> Machine:
        self.asked.append(index)
        await self.is_free.wait()
        if not self.spares:
            raise RuntimeError("no machine is free")
        return self.spares.pop(0)

    async def whole(self) -> None:
        """Wait until both places serve."""
        async with asyncio.timeout(10):
            while self.pool.num_serving < 2:
                await asyncio.sleep(0)

    async def who(self, session: str) -> int:
        """Who answers a session with a prompt of its own."""
        return await self.who_reads(list(session.encode()), session)

    async def who_reads(self, prompt: list[int], session: str) -> int:
        return (await self.pool.generate(prompt, Sampling(), session=session)).tokens[0]


async def test_a_session_stays_and_new_ones_go_where_fewest_are():
    yard = Yard()
    homes = [await yard.who(f"s{number}") for number in range(6)]
    assert sorted(homes) == [0, 0, 0, 1, 1, 1]
    assert [await yard.who(f"s{number}") for number in range(6)] == homes


async def test_a_forgotten_session_makes_room():
    yard = Yard()
    homes = {f"s{number}": await yard.who(f"s{number}") for number in range(4)}
    for session, home in homes.items():
        if home == 1:
            await yard.pool.forget(session)
    await yard.pool.forget("never seen")
    assert [await yard.who("x"), await yard.who("y")] == [1, 1]


async def test_sessions_of_one_prompt_share_an_engine_until_others_have_far_less_to_do():
    yard = Yard()
    homes = [await yard.who_reads([5, 6], f"s{number}") for number in range(MAX_GAP + 4)]
    assert len(set(homes[:MAX_GAP])) == 1 and len(set(homes)) == 2


async def test_the_engine_of_a_prompt_may_be_gone():
    yard = Yard(spares=1)
    first = await yard.who_reads([5, 6], "a")
    yard.machines[first].is_broken = True
    assert await yard.who_reads([5, 6], "b") == 1 - first


async def test_a_broken_engine_is_replaced_and_its_sessions_move():
    yard = Yard(spares=1)
    sessions = [f"s{number}" for number in range(4)]
    for session in sessions:
        await yard.who(session)
    yard.machines[0].is_broken = True
    answers = await asyncio.gather(*(yard.who(session) for session in sessions))
    assert 0 not in answers
    assert yard.asked == [0]
    assert yard.pool.num_replaced == 1
    assert yard.pool.num_serving == 2
    assert {await yard.who(f"t{number}") for number in range(8)} == {1, 100}


async def test_two_failures_in_a_row_are_an_engine_error():
    yard = Yard(spares=2)
    for machine in yard.machines + yard.spares:
        machine.is_broken = True
    with pytest.raises(EngineError, match="the machine is broken"):
        await yard.who("s")


async def test_a_prompt_that_is_too_long_is_nobodys_fault():
    yard = Yard()
    with pytest.raises(PromptTooLong):
        await yard.pool.generate([1] * 100, Sampling(), session="s")
    assert yard.asked == []
    assert yard.pool.num_serving == 2


async def test_a_hung_engine_meets_the_deadline_and_is_replaced():
    yard = Yard(spares=1, deadlines=Deadlines(generate_s=0.3))
    yard.machines[0].is_hung = True
    assert await yard.who("s") == 1
    await yard.whole()
    assert yard.asked == [0]


async def test_a_cancelled_call_leaves_the_engine_alone_but_for_telling_it():
    yard = Yard()
    yard.machines[0].is_hung = True
    call = asyncio.create_task(yard.who("s"))
    while not yard.machines[0].calls:
        await asyncio.sleep(0)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    assert yard.machines[0].forgotten == ["s"]
    assert yard.asked == []
    assert yard.pool.num_serving == 2


async def test_load_reaches_every_engine():
    yard = Yard()
    await yard.pool.load(NEW)
    assert [machine.version for machine in yard.machines] == [7, 7]


@pytest.mark.parametrize("fault", ["breaks_on_load", "is_hung"])
async def test_an_engine_that_fails_to_load_is_replaced_by_one_with_the_newest_weights(fault):
    yard = Yard(spares=1, deadlines=Deadlines(load_s=0.3))
    spare = yard.spares[0]
    setattr(yard.machines[0], fault, True)
    await yard.pool.load(NEW)
    await yard.whole()
    assert (spare.version, yard.machines[1].version) == (7, 7)
    assert {await yard.who(f"s{number}") for number in range(4)} == {1, 100}


async def test_a_respawned_engine_serves_only_after_it_has_what_was_published_meanwhile():
    yard = Yard(spares=1)
    spare = yard.spares[0]
    yard.is_free.clear()
    await yard.pool.load(Weights(1, "nowhere", ""))
    yard.machines[0].is_broken = True
    for session in ("a", "b"):
        await yard.who(session)
    await yard.pool.load(NEW)
    assert (yard.pool.num_serving, spare.loads) == (1, 0)
    yard.is_free.set()
    await yard.whole()
    assert (spare.loads, spare.version) == (1, 7)


async def test_no_engine_left_is_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr(engine_pool, "PAUSES_S", ())
    yard = Yard()
    for machine in yard.machines:
        machine.is_broken = True
    with pytest.raises(EngineError, match="the machine is broken"):
        await yard.who("s")
    with pytest.raises(EngineError, match="no engine is left.*no machine is free"):
        await yard.who("s")


async def test_a_respawn_that_fails_is_tried_again_while_calls_wait(monkeypatch):
    monkeypatch.setattr(engine_pool, "PAUSES_S", (0.0, 0.0))
    yard = Yard()
    for machine in yard.machines:
        machine.is_broken = True
    respawn = yard.respawn

    async def fails_twice(index: int) -> Machine:
        if len(yard.asked) == 4:  # each place has failed twice
            yard.spares = [Machine(100), Machine(101)]
        return await respawn(index)

    yard.pool._respawn = fails_twice
    with contextlib.suppress(EngineError):
        await yard.who("s")  # on both of the broken ones
    assert await yard.who("s") in (100, 101)
    assert yard.pool.num_replaced == 2


async def test_load_brings_back_a_place_whose_respawn_had_failed(monkeypatch):
    monkeypatch.setattr(engine_pool, "PAUSES_S", ())
    yard = Yard()
    yard.machines[0].breaks_on_load = True
    await yard.pool.load(Weights(1, "nowhere", ""))
    while not yard.asked:
        await asyncio.sleep(0)
    assert yard.pool.num_serving == 1
    yard.spares.append(Machine(100))
    await yard.pool.load(NEW)
    await yard.whole()
    assert {await yard.who(f"s{number}") for number in range(4)} == {1, 100}


async def test_refused_weights_change_nothing():
    yard = Yard(spares=1)
    await yard.pool.load(Weights(1, "nowhere", ""))
    for machine in yard.machines:
        machine.refuses = True
    with pytest.raises(WeightsRefused, match="version 7 is damaged"):
        await yard.pool.load(NEW)
    assert yard.asked == []
    assert [machine.version for machine in yard.machines] == [1, 1]
    spare = yard.spares[0]
    yard.machines[0].is_broken = True
    assert await yard.who("s") == 1
    await yard.whole()
    assert spare.version == 1


async def test_an_engine_that_alone_refuses_is_replaced():
    yard = Yard(spares=1)
    yard.machines[0].refuses = True
    await yard.pool.load(NEW)
    await yard.whole()
    assert yard.asked == [0]
    assert {await yard.who(f"s{number}") for number in range(4)} == {1, 100}


async def test_stats_are_of_the_engines_that_answer(monkeypatch):
    monkeypatch.setattr(engine_pool, "STATS_S", 0.05)
    yard = Yard()
    for machine, said in zip(yard.machines, (EngineStats(3, 1, 50, 2, 0.4, 1), EngineStats(5, 0, 70, 1, 0.9, 2)), strict=True):
        machine.said = said
    assert await yard.pool.stats() == EngineStats(8, 1, 120, 1, 0.9, 3)
    yard.machines[1].is_hung = True
    assert await yard.pool.stats() == EngineStats(3, 1, 50, 2, 0.4, 1)


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="num_engines"):
        EnginePool([], Yard().respawn)


def test_a_deadline_must_lie_ahead():
    with pytest.raises(ValueError, match="actors.deadlines.load_s is 0"):
        Deadlines(load_s=0)
