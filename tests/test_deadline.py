"""Deadlines that count only the time in which the event loop ran."""

from __future__ import annotations

import asyncio

import pytest

from kronos_api.deadline import STEPS, within


class StalledLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps by `stall` seconds in each turn."""

    stall = 0.0
    lost = 0.0

    def time(self) -> float:
        return super().time() + self.lost

    def _run_once(self) -> None:
        self.lost += self.stall
        super()._run_once()  # type: ignore[misc]


async def late(turns: int) -> str:
    """A response after so many iterations of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return "answer"


async def never() -> str:
    await asyncio.Event().wait()
    return "no answer"


@pytest.fixture
def loop() -> StalledLoop:
    return StalledLoop()


def test_stall_does_not_use_up_the_deadline(loop: StalledLoop) -> None:
    loop.stall = 3600.0
    assert loop.run_until_complete(within(0.001, late(turns=STEPS))) == "answer"
    loop.close()


def test_wait_ends_on_a_loop_that_always_stalls(loop: StalledLoop) -> None:
    loop.stall = 3600.0
    with pytest.raises(TimeoutError):
        loop.run_until_complete(within(0.001, never()))
    loop.close()


async def test_response_that_arrives_with_the_end_is_returned() -> None:
    waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer() -> str:
        return await waiting

    task = asyncio.ensure_future(within(0.0, answer()))
    for _ in range(STEPS):
        await asyncio.sleep(0)
    waiting.set_result("answer")
    assert await task == "answer"


async def test_work_is_cancelled_when_the_wait_ends() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    with pytest.raises(TimeoutError, match="no answer within 1 ms"):
        await within(0.001, work())
    await asyncio.sleep(0)
    assert ended == ["work"]
    task = asyncio.create_task(within(60.0, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert ended == ["work", "work"]


async def test_exception_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise OSError("refused")

    with pytest.raises(OSError, match="refused"):
        await within(1.0, work())
