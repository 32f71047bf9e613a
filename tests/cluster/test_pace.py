"""As many groups as the caches bear: found from preemptions alone, and never more than allowed."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import EngineStats
from cluster.pace import Pace


async def entered(pace: Pace) -> int:
    count = 0
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.005):
                await pace.__aenter__()
            count += 1
    return count


async def test_no_more_than_the_limit_are_open() -> None:
    pace = Pace(3)
    assert await entered(pace) == 3
    waiting = asyncio.create_task(pace.__aenter__())
    await pace.__aexit__()
    await asyncio.wait_for(waiting, 1)
    assert pace.num_open == 3


async def test_a_preemption_cuts_once_until_the_cut_has_taken_effect() -> None:
    pace = Pace(8)
    await entered(pace)
    for preemptions, limit in ((2, 6), (5, 6), (9, 6)):  # eight are still open
        await pace.observe(EngineStats(kv_usage=1.0, preemptions=preemptions))
        assert pace.limit == limit
    for _ in range(2):
        await pace.__aexit__()
    assert await entered(pace) == 0
    await pace.observe(EngineStats(kv_usage=1.0, preemptions=10))
    assert pace.limit == 4


async def test_it_rises_by_one_while_there_is_room_and_not_beyond_what_was_allowed() -> None:
    pace = Pace(4)
    await entered(pace)
    await pace.observe(EngineStats(kv_usage=1.0, preemptions=1))
    assert pace.limit == 3
    await pace.observe(EngineStats(kv_usage=0.9, preemptions=1))
    assert pace.limit == 3  # no preemption, but no room either
    for limit in (4, 4):
        await pace.observe(EngineStats(kv_usage=0.5, preemptions=0))  # an engine was replaced: it counts anew
        assert pace.limit == limit


@pytest.mark.parametrize("most", [1, 40])
@given(capacity=st.integers(1, 30))
def test_it_finds_what_a_cache_bears(most: int, capacity: int) -> None:
    """An engine that preempts whenever more than `capacity` groups are open; groups end one at a time."""

    async def play() -> None:
        pace, preemptions, seen = Pace(most), 0, []
        for tick in range(200):
            while pace.num_open < pace.limit:
                await pace.__aenter__()
            preemptions += max(0, pace.num_open - capacity)
            await pace.observe(EngineStats(kv_usage=min(1.0, pace.num_open / capacity), preemptions=preemptions))
            await pace.__aexit__()
            if tick >= 100:
                seen.append(pace.limit)
        assert max(seen) <= min(most, capacity + 1) and min(seen) >= min(most, max(1, int(capacity * 0.7) - 1))

    asyncio.run(play())
