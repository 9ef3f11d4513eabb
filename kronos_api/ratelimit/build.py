"""Builds the limiter from the values of settings."""

from __future__ import annotations

from pathlib import Path

from kronos_api.ratelimit.host_store import HostStore
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.quotas import Quotas, parse_routes


def build_limiter(
    *,
    per_minute: int,
    limits: str,
    redis_url: str | None,
    folder: Path | None,
    workers: int,
    replicas: int,
) -> Limiter:
    """A limiter of `per_minute` over all routes, and of `limits` on some of them.

    It counts in Redis if `redis_url` is given, else in a file in `folder`.

    Raises:
        StartupError: `limits` or `redis_url` cannot be parsed.
    """
    quotas = Quotas(per_minute, parse_routes(limits))
    if redis_url is None:
        return Limiter(quotas, HostStore(folder), workers=workers)
    # Imported only where it is used, because the import takes a while.
    from kronos_api.ratelimit.redis_store import RedisStore

    return Limiter(quotas, RedisStore(redis_url), workers=workers * replicas)
