"""Responses in a real Redis, which two workers share, and which goes away and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kronos_api.cache.redis_store import LARGEST, PAUSE, RedisStore
from kronos_api.cache.store import CacheUnavailable
from kronos_api.errors import StartupError
from tests.processes import Redis, needs_redis, redis_server

pytestmark = [pytest.mark.process, needs_redis]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with redis_server(tmp_path) as server:
        yield server


async def test_workers_share_values(redis: Redis) -> None:
    one, other = RedisStore(redis.url), RedisStore(redis.url)
    assert await one.add("a", b"first", 60) is None
    assert await other.add("a", b"second", 60) == b"first"
    await other.put("a", b"third", 0.001)
    assert not await other.put("b", b"x" * (LARGEST + 1), 60)
    assert await one.put("c", b"kept", 60)
    await one.delete("c", b"other")
    assert await one.get("c") == b"kept"
    await one.delete("c", b"kept")
    assert [await one.get(key) for key in "bc"] == [None, None]
    await one.close()
    await other.close()


async def test_redis_that_is_away_is_left_alone_for_a_pause(redis: Redis) -> None:
    now = 0.0
    store = RedisStore(redis.url, now=lambda: now)
    await store.put("a", b"value", 60)
    redis.kill()
    for _ in range(2):
        with pytest.raises(CacheUnavailable):
            await store.get("a")
    redis.start()
    with pytest.raises(CacheUnavailable, match="a moment ago"):
        await store.get("a")
    now = PAUSE
    assert await store.get("a") is None  # a Redis without persistence has lost it
    await store.put("a", b"value", 60)
    assert await store.get("a") == b"value"
    await store.close()


def test_url_of_no_redis_stops_the_start() -> None:
    with pytest.raises(StartupError, match="KRONOS_REDIS_URL"):
        RedisStore("http://redis")
