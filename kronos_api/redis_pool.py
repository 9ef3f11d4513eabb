"""Connections to the Redis of KRONOS_REDIS_URL."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from kronos_api.errors import StartupError

CONNECTIONS: Final = 16
"""Connections of a pool, at most; further calls wait for one within their bound."""


def redis_pool(url: str) -> BlockingConnectionPool:
    """Connections that are made on demand and tried once: each use of Redis has a fallback.

    Raises:
        StartupError: `url` is not a URL of a Redis.
    """
    message = (
        "KRONOS_REDIS_URL: must have the form redis://[[user]:password@]host[:port][/database],"
        " rediss://... or unix:///path, such as redis://redis:6379/0, with special characters of"
        " user and password percent-encoded"
    )
    try:
        parts = urlsplit(url)
        whole = bool(parts.path if parts.scheme == "unix" else parts.hostname)
        database = parts.scheme == "unix" or parts.path.strip("/").isdecimal() or not parts.path[1:]
        if not (whole and database) or parts.fragment or parts.port == 0:
            raise ValueError
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        pool.make_connection()  # type: ignore[no-untyped-call]  # rejects unknown options
    except Exception:  # its message can hold the password
        raise StartupError(message) from None
    return pool
