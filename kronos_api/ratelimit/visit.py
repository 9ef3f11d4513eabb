"""One request's way past the limiter."""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Scope

from kronos_api.errors import RateLimited
from kronos_api.ratelimit.limiter import Limiter, Verdict
from kronos_api.telemetry import metrics

STATE: Final = "rate_limit"
"""Where a request's `scope["state"]` has its visit."""


class Visit:
    """Charges a caller for one request of `route`; `label` is the caller's in metrics."""

    def __init__(
        self, limiter: Limiter, *, caller: str, label: str, route: str, by_items: bool
    ) -> None:
        self.limiter = limiter
        self.caller = caller
        self.label = label
        self.route = route
        self.by_items = by_items
        self.verdict: Verdict | None = None
        self._charged: list[tuple[int, Verdict]] = []

    async def charge(self, cost: int) -> None:
        """Grant `cost` forecasts or raise `RateLimited`."""
        self.verdict = await self.limiter.take(self.caller, self.route, cost)
        if self.verdict.allowed:
            self._charged.append((cost, self.verdict))
        else:
            metrics.RATE_LIMIT_HITS.labels(self.label).inc()
            raise RateLimited(
                f"The caller's limit of {self.verdict.limit} forecasts is used up."
                if cost == 1
                else f"The caller's limit leaves no room for a batch of {cost + 1} series.",
                retry_after=self.verdict.wait,
            )

    async def give_back(self) -> None:
        """Take back all that was charged: the request was refused before any work."""
        while self._charged:
            cost, granted = self._charged.pop()
            self.verdict = await self.limiter.give_back(self.caller, self.route, cost, granted)

    def headers(self) -> dict[str, str]:
        """How the caller's quota stands."""
        return quota_headers(self.verdict)


def quota_headers(verdict: Verdict | None) -> dict[str, str]:
    """How a quota stands; nothing where no limit was asked."""
    if verdict is None:
        return {}
    return {
        "X-RateLimit-Limit": str(verdict.limit),
        "X-RateLimit-Remaining": str(verdict.remaining),
        "X-RateLimit-Reset": str(verdict.reset),
    }


async def charge_items(scope: Scope, items: int) -> None:
    """Charge for all `items` of a batch but the first, which was charged at the door.

    Raises `RateLimited`. Does nothing where no limit is set or a batch counts as one.
    """
    visit: Any = scope.get("state", {}).get(STATE)
    if visit is not None and visit.by_items and items > 1:
        await visit.charge(items - 1)
