"""Builds the cache from the values of settings."""

from __future__ import annotations

from typing import Literal

from kronos_api.cache.memory_store import MemoryStore
from kronos_api.cache.responses import ResponseCache
from kronos_api.cache.store import Store

Kind = Literal["off", "memory", "redis"]


def build_cache(
    kind: Kind, *, size: int, seconds: float, pending: float, redis_url: str | None
) -> ResponseCache | None:
    """A cache of `kind`: in `size` bytes of memory or in Redis, kept for `seconds`; None: off.

    pending: seconds that a request can take.

    Raises:
        StartupError: `redis_url` cannot be parsed.
    """
    if kind == "off":
        return None
    store: Store = MemoryStore(size)
    if kind == "redis":
        assert redis_url is not None, "the settings have checked it"
        # Imported only where it is used, because the import takes a while.
        from kronos_api.cache.redis_store import RedisStore

        store = RedisStore(redis_url)
    return ResponseCache(store, seconds=seconds, pending=pending)
