"""The count of all replicas, in a real Redis; and what is no URL of one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kronos_api.errors import StartupError
from kronos_api.ratelimit import limiter as module
from kronos_api.ratelimit.build import build_limiter
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.quotas import Quota, Quotas, parse_routes
from kronos_api.ratelimit.redis_store import RedisStore
from kronos_api.ratelimit.store import StoreUnavailable, WindowCounter
from tests.processes import Redis, free_port, needs_redis, redis_server
from tests.web import until

DAY = Quota("all", 100, 86_400)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def stores(url: str, number: int = 1) -> AsyncIterator[list[RedisStore]]:
    made = [RedisStore(url) for _ in range(number)]
    try:
        yield made
    finally:
        for store in made:
            await store.close()


async def calls(store: RedisStore, number: int, counter: WindowCounter, cost: int = 1) -> int:
    answers = await asyncio.gather(*(store.count("web", [counter], cost) for _ in range(number)))
    return sum(allowed for allowed, _ in answers)


@pytest.mark.process
@needs_redis
async def test_workers_share_one_count(redis: Redis) -> None:
    async with stores(redis.url, 3) as workers:
        passed = await asyncio.gather(*(calls(store, 60, WindowCounter(DAY)) for store in workers))
    assert sum(passed) == 100


@pytest.mark.process
@needs_redis
async def test_all_quotas_grant_or_none(redis: Redis) -> None:
    small = Quota("batch", 3, 86_400)
    async with stores(redis.url) as (store,):
        both = [WindowCounter(DAY), WindowCounter(small)]
        passed = [(await store.count("web", both, 1))[0] for _ in range(5)]
        _, (reading,) = await store.count("web", [WindowCounter(DAY)], 0)
        assert not (await store.count("web", [WindowCounter(DAY)], 98))[0]
        assert (await store.count("web", [WindowCounter(DAY)], 97))[0]
    assert passed == [True] * 3 + [False] * 2
    assert reading.total == 3
    assert 0 < reading.left <= 86_400


@pytest.mark.process
@needs_redis
async def test_emptied_redis_gets_the_counts_back(redis: Redis) -> None:
    async with stores(redis.url, 2) as (one, other):
        _, (reading,) = await one.count("web", [WindowCounter(DAY)], 60)
        await other.count("web", [WindowCounter(DAY)], 30)
        redis.kill()
        redis.start()
        for store in (one, other):
            await store.check()  # or they would find their connections closed
        assert (await other.count("web", [WindowCounter(DAY, reading.window, 30)], 0))[1][
            0
        ].total == 30
        known = WindowCounter(DAY, reading.window, 60)
        assert (await one.count("web", [known], 1))[1][0].total == 91
        assert (await one.count("web", [known], 0))[1][0].total == 91  # reported again
        stale = WindowCounter(DAY, reading.window - 1, 100)
        assert (await one.count("web", [stale], 0))[1][0].total == 91


@pytest.mark.process
@needs_redis
async def test_returned_forecasts_can_be_granted_again(redis: Redis) -> None:
    quotas = Quotas(10**6, parse_routes("single=30/day"))
    limiters = [Limiter(quotas, RedisStore(redis.url)) for _ in range(3)]

    async def half(limiter: Limiter) -> int:
        """Of what is granted, every second forecast is refused later."""
        kept = 0
        for number in range(30):
            granted = await limiter.take("web", "single")
            if granted.allowed and number % 2:
                await limiter.give_back("web", "single", 1, granted)
            kept += granted.allowed and not number % 2
        return kept

    try:
        for limiter in limiters:
            await limiter.start()
        kept = sum(await asyncio.gather(*(half(one) for one in limiters for _ in range(4))))
        left = [await limiters[0].take("web", "single") for _ in range(40)]
        assert kept + sum(one.allowed for one in left) == 30
        assert not any(limiter.degraded for limiter in limiters)
    finally:
        for limiter in limiters:
            await limiter.stop()


@needs_redis
async def test_late_call_does_not_undo_a_return(redis: Redis) -> None:
    async with stores(redis.url) as (store,):
        counter = WindowCounter(DAY)
        _, (reading,) = await store.count("web", [counter], 3)
        counter.update(reading, 3)
        late = replace(counter)
        counter.give_back(2)
        _, (reading,) = await store.count("web", [counter], 0)
        assert reading.total == 1
        _, (reading,) = await store.count("web", [late], 1)
        assert reading.total == 2


@needs_redis
async def test_windows_end(redis: Redis) -> None:
    second = Quota("all", 3, 1)
    async with stores(redis.url) as (store,):
        called: Counter[int] = Counter()
        passed: Counter[int] = Counter()
        while len(called) < 4 or (max(called.values()) <= 3 and len(called) < 30):
            allowed, (reading,) = await store.count("web", [WindowCounter(second)], 1)
            called[reading.window] += 1
            passed[reading.window] += allowed
            assert 0 <= reading.left <= 1
            await asyncio.sleep(0.05)
        assert passed == {window: min(3, number) for window, number in called.items()}
        # Nothing is kept; Redis drops it when it comes to it.
        async with asyncio.timeout(60):
            while await store._redis.dbsize():
                await asyncio.sleep(0.05)


@pytest.mark.process
@needs_redis
async def test_redis_becomes_unavailable_and_recovers(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBE_PAUSE", 0.1)
    monkeypatch.setattr(module, "BOUND", 60.0)  # a Redis that is merely slow is not away
    limiter = made(redis.url, limits="single=100/year", per_minute=10**6, workers=2)
    await limiter.start()
    try:
        assert not limiter.degraded
        for _ in range(30):
            await limiter.take("web", "single")
        redis.kill()
        local = [(await limiter.take("web", "single")).allowed for _ in range(60)]
        assert (sum(local), limiter.degraded) == (35, True)
        redis.start()
        await until(lambda: not limiter.degraded)
        verdict = await limiter.take("web", "single")
        assert (verdict.allowed, verdict.remaining) == (True, 34)
    finally:
        await limiter.stop()


def made(url: str, **options: Any) -> Limiter:
    chosen: dict[str, Any] = {"per_minute": 100, "limits": "", "workers": 1, "replicas": 1}
    return build_limiter(**chosen | {"redis_url": url, "folder": None} | options)


async def test_unreachable_redis_is_no_startup_error() -> None:
    limiter = made(f"redis://127.0.0.1:{free_port()}", workers=2, replicas=5)
    await limiter.start()
    assert limiter.degraded
    assert limiter.share(100) == 10
    await limiter.stop()


async def test_store_unavailable_hides_the_password() -> None:
    store = RedisStore(f"redis://user:s3cret@127.0.0.1:{free_port()}/3")
    with pytest.raises(StoreUnavailable) as caught:
        await store.count("web", [WindowCounter(DAY)], 1)
    assert "s3cret" not in str(caught.value)
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://h",
        "redis://",
        "redis://:s3cret@",
        "redis://:s3/cret@h",
        "redis://h:port",
        "redis://h:0",
        "redis://h:99999",
        "redis://h/zero",
        "redis://h/0/1",
        "redis://h/0#s3cret",
        "redis://h?s3cret=1",
        "redis://h?socket_timeout=s3cret",
        "redis://[::1",
        "unix://",
    ],
)
def test_bad_url_is_one_line_without_its_text(url: str) -> None:
    with pytest.raises(
        StartupError, match=r"^KRONOS_REDIS_URL: must have the form [^\n]+$"
    ) as caught:
        RedisStore(url)
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://h:6380/3",
        "rediss://user:p%2Fw@h:6380/0",
        "redis://[::1]:6379",
        "unix:///run/redis.sock",
        "unix://:pw@/run/redis.sock?db=2",
        "redis://h?socket_connect_timeout=1",
    ],
)
def test_urls(url: str) -> None:
    RedisStore(url)
