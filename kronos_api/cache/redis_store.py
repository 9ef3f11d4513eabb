"""Responses in Redis, for all workers and replicas.

A call waits at most `BOUND`. After one that failed, no call reaches Redis for `PAUSE`; then the
next one tries it, while the others still do without.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from kronos_api.cache.store import CacheUnavailable
from kronos_api.deadline import within
from kronos_api.redis_pool import redis_pool

BOUND: Final = 0.25
"""Seconds that a call waits for Redis."""
PAUSE: Final = 5.0
"""Seconds without a call after one that failed."""
LARGEST: Final = 4 * 2**20
"""Bytes of a value: a larger one could take longer than `BOUND` on a slow network."""
PREFIX: Final = "kronos:cache:"
DELETE: Final = """
if redis.call("get", KEYS[1]) == ARGV[1] then redis.call("del", KEYS[1]) end
"""
"""Script that deletes a key if it has one value."""

log = structlog.stdlib.get_logger("kronos_api.cache")


class RedisStore:
    """Values in the Redis at `url`; raises `StartupError` if that is not a URL of a Redis."""

    kind: Literal["memory", "redis"] = "redis"

    def __init__(self, url: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._pool = redis_pool(url)
        self._redis = Redis(connection_pool=self._pool)
        self._now = now
        self._failed = False
        self._retry_at = now()

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = await self._call(lambda: self._redis.get(PREFIX + key))
        return value

    async def put(self, key: str, value: bytes, seconds: float) -> bool:
        if len(value) > LARGEST:
            return False
        px = round(seconds * 1000)
        await self._call(lambda: self._redis.set(PREFIX + key, value, px=px))
        return True

    async def add(self, key: str, value: bytes, seconds: float) -> bytes | None:
        px = round(seconds * 1000)
        stored = await self._call(lambda: self._redis.set(PREFIX + key, value, px=px, nx=True))
        return None if stored else await self.get(key)

    async def delete(self, key: str, value: bytes) -> None:
        await self._call(lambda: self._redis.eval(DELETE, 1, PREFIX + key, value))

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()

    async def _call(self, command: Callable[[], Awaitable[Any]]) -> Any:
        if self._failed:
            if self._now() < self._retry_at:
                raise CacheUnavailable("Redis failed a moment ago")
            self._retry_at = self._now() + PAUSE
        try:
            if self._failed:  # connections to a Redis that was restarted are dead
                await self._pool.disconnect(inuse_connections=False)
            result = await within(BOUND, _awaited(command()))
        except (RedisError, OSError, UnicodeError) as error:
            self._retry_at = self._now() + PAUSE
            if not self._failed:
                log.warning("cache_store_unavailable", reason=str(error))
            self._failed = True
            raise CacheUnavailable(str(error)) from None
        if self._failed:
            log.info("cache_store_recovered")
            self._failed = False
        return result


async def _awaited(command: Awaitable[Any]) -> Any:
    return await command
