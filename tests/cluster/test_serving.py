"""Publications reach the engines while the learner goes on; only the newest matters."""

import asyncio

import pytest

from cluster.serving import Serving
from learner.weights import Weights


def weights(version: int) -> Weights:
    return Weights(version, "nowhere", "")


class Slow:
    """Loads as long as it is told to."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, new: Weights) -> None:
        self.begun.set()
        await self.may_end.wait()
        self.loaded.append(new.version)


async def is_waiting(work: asyncio.Task) -> bool:
    await asyncio.sleep(0.01)
    return not work.done()


async def test_what_a_newer_publication_overtakes_is_left_out():
    load = Slow()
    serving = Serving(load)
    running = asyncio.create_task(serving.run())
    await serving.settled()  # nothing was published yet
    await serving.offer(weights(1))
    await load.begun.wait()
    await serving.offer(weights(2))
    await serving.offer(weights(3))
    settled = asyncio.create_task(serving.settled())
    assert await is_waiting(settled)
    load.may_end.set()
    await settled
    assert load.loaded == [1, 3]
    running.cancel()


async def test_there_is_no_room_while_an_overtaken_version_is_being_read():
    load = Slow()
    serving = Serving(load)
    running = asyncio.create_task(serving.run())
    await serving.offer(weights(1))
    await load.begun.wait()
    await serving.room()  # version 2 may be written while 1 is read
    await serving.offer(weights(2))
    room = asyncio.create_task(serving.room())
    assert await is_waiting(room)  # 3 would be written over 1
    load.may_end.set()
    await room
    running.cancel()


async def test_a_failed_load_ends_it():
    async def fail(new: Weights) -> None:
        raise RuntimeError(f"no engine is left for {new.version}")

    serving = Serving(fail)
    await serving.offer(weights(4))
    with pytest.raises(RuntimeError, match="no engine is left for 4"):
        await serving.run()
