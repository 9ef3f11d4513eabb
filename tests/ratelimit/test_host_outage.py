"""Forecasts that a worker grants while the host's file is locked are counted later."""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from kronos_api.ratelimit import limiter as module
from kronos_api.ratelimit.host_store import HostStore
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.quotas import Quotas
from kronos_api.ratelimit.store import Reading, WindowCounter
from tests.ratelimit.test_host_store import DAY, calls
from tests.web import until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_PAUSE", 0.1)


@asynccontextmanager
async def two_workers(store: HostStore) -> AsyncIterator[tuple[Limiter, HostStore]]:
    """One that counts in `store`, and what the other one counts in."""
    other = HostStore(store.path.parent)
    limiter = Limiter(Quotas(10**6, {"single": (DAY,)}), store, workers=2)
    await limiter.start()
    try:
        yield limiter, other
    finally:
        await limiter.stop()
        await other.close()


@contextmanager
def locked(store: HostStore) -> Iterator[None]:
    with store.path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def granted(limiter: Limiter, number: int = 60, caller: str = "web") -> int:
    return sum([(await limiter.take(caller, "single")).allowed for _ in range(number)])


async def test_local_grants_are_counted_later(tmp_path: Path) -> None:
    store = HostStore(tmp_path)
    async with two_workers(store) as (limiter, other):
        assert await granted(limiter, 1) == 1
        assert sum(await calls(other, 30)) == 30
        with locked(store):
            assert await granted(limiter) == 49
            assert limiter.degraded
        await until(lambda: not limiter.degraded)
        assert sum(await calls(other, 60)) == 20


async def test_call_in_flight_counts_local_grants(tmp_path: Path) -> None:
    store = HostStore(tmp_path)
    async with two_workers(store) as (limiter, other):
        with locked(store):
            first = asyncio.create_task(limiter.take("web", "single"))
            await asyncio.sleep(0.15)
            second = asyncio.create_task(limiter.take("web", "single"))
            assert (await first).allowed
            local = await granted(limiter)
        local += 1 + (await second).allowed
        await until(lambda: not limiter.degraded)
        assert local + sum(await calls(other, 200)) == 100


@pytest.mark.parametrize("turned", [False, True])
async def test_grants_of_the_last_probe_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    """Before calls ask the file again; a day may end in it, too."""
    now = 10 * 86_400 - 5.0
    monkeypatch.setattr(time, "time", lambda: now)
    last = rounds = 0

    class Slow(HostStore):
        async def count(
            self, caller: str, counters: Sequence[WindowCounter], cost: int
        ) -> tuple[bool, list[Reading]]:
            nonlocal now, last, rounds
            if not cost and caller == "first" and counters[0].quota == DAY:
                rounds += 1
                if rounds == 2:
                    now += 10 * turned
                    last = await granted(limiter)
            return await super().count(caller, counters, cost)

    store = Slow(tmp_path)
    async with two_workers(store) as (limiter, other):
        with locked(store):
            assert await granted(limiter, 1, "first") == 1
            assert await granted(limiter, 1) == 1
        await until(lambda: not limiter.degraded)
        assert rounds == 2
        assert last > 0
        # The probe has reported it, or the next call of the same worker does.
        last += await granted(limiter, 1)
        assert last + sum(await calls(other, 200)) == 100 - (not turned)


async def test_local_grants_are_counted_once_and_in_their_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 10 * 86_400 + 5.0
    monkeypatch.setattr(time, "time", lambda: now)
    store, counter = HostStore(tmp_path), WindowCounter(DAY)
    counter.advance(10)
    counter.grant_locally(30)
    for total in (31, 32):
        assert (await store.count("web", [counter], 1))[1][0].total == total
    counter.grant_locally(30)
    now += 86_400
    assert (await store.count("web", [counter], 1))[1][0].total == 1
    await store.close()
