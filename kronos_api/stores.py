"""The rate limit and the kept responses, from settings."""

from __future__ import annotations

from kronos_api.cache.build import build_cache
from kronos_api.cache.responses import ResponseCache
from kronos_api.config import Settings
from kronos_api.ratelimit.build import build_limiter
from kronos_api.ratelimit.limiter import Limiter


def limiter_of(settings: Settings, workers: int) -> Limiter:
    """The limiter of one of `workers` processes; raises `StartupError`."""
    url = settings.redis_url
    return build_limiter(
        per_minute=settings.rate_limit_per_minute,
        limits=settings.rate_limits or "",
        redis_url=url.get_secret_value() if url else None,
        folder=settings.rate_limit_dir,
        workers=workers,
        replicas=settings.replicas,
    )


def cache_of(settings: Settings) -> ResponseCache | None:
    """The kept responses of one process; raises `StartupError`."""
    url = settings.redis_url
    return build_cache(
        settings.cache,
        size=settings.cache_mb * 2**20,
        seconds=settings.cache_ttl,
        pending=settings.request_timeout,
        redis_url=url.get_secret_value() if url else None,
    )
