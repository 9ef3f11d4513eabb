"""Makes the limiter that settings describe."""

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

    It counts in Redis if there is a URL of one, else in a file of `folder`. Raises
    `StartupError`.
    """
    quotas = Quotas(per_minute, parse_routes(limits))
    if redis_url is None:
        return Limiter(quotas, HostStore(folder), workers=workers)
    # The client is only imported where it is used: it takes a while.
    from kronos_api.ratelimit.redis_store import RedisStore

    return Limiter(quotas, RedisStore(redis_url), workers=workers * replicas)
