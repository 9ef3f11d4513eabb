"""The limit of routes that are not forecasts: slowapi, in memory, in each worker.

It protects a worker from overload and need not be exact over workers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import slowapi
from starlette.datastructures import State
from starlette.requests import Request

from kronos_api.ratelimit.limiter import Verdict
from kronos_api.ratelimit.quotas import ALL, Quota

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Limited(Protocol):
    """Decorates a route's function, which takes a `request`."""

    def __call__(self, endpoint: Endpoint, /) -> Endpoint:
        """`endpoint`, counted."""
        ...


class OtherLimiter(slowapi.Limiter):
    """Grants each caller, as `key` names it, `per_minute` requests over all decorated routes."""

    def __init__(self, per_minute: int, key: Callable[[Request], str], *, enabled: bool) -> None:
        super().__init__(key, storage_uri="memory://", enabled=enabled)
        self._shared = f"{per_minute}/minute"
        # Refusals have a metric and a line in the access log.
        logging.getLogger("slowapi").setLevel(logging.ERROR)

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        """The default: slowapi's own variables (RATELIMIT_ENABLED, ...) are not settings."""
        del key
        return default_value

    def limited(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint`, counted together with all others."""
        return cast(Endpoint, self.shared_limit(self._shared, scope="other")(endpoint))

    def verdict(self, state: State) -> Verdict | None:
        """The state of the quota after a request with `state`; None if it was not counted."""
        counted = getattr(state, "view_rate_limit", None)
        if counted is None:
            return None
        limit, key = counted
        reset, remaining = self.limiter.get_window_stats(limit, *key)
        wait = max(0.0, reset - time.time())
        quota = Quota(ALL, limit.amount, limit.get_expiry())
        return Verdict(remaining > 0, quota, remaining, round(reset), wait)
