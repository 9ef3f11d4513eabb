"""One request's way past the limiter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

from starlette.types import Scope

from kronos_api.errors import InvalidInput, RateLimited
from kronos_api.ratelimit.limiter import Limiter, Verdict
from kronos_api.telemetry.metrics import metrics

STATE: Final = "rate_limit"
"""Where a request's `scope["state"]` has its visit."""


CountedBy = Literal["items", "request", "decode_steps"]
"""What counts as one forecast: a series, a request, or `WORK_UNIT` begun of a series."""
WORK_UNIT: Final = 1024
"""Sample paths x steps: a series of 8 paths and 128 steps counts as one forecast."""


class Visit:
    """Charges a caller for one request of `route`; `label` is the caller's in metrics."""

    def __init__(
        self, limiter: Limiter, *, caller: str, label: str, route: str, by: CountedBy
    ) -> None:
        self.limiter = limiter
        self.caller = caller
        self.label = label
        self.route = route
        self.by: CountedBy = by
        self.verdict: Verdict | None = None
        self._charged: list[tuple[int, Verdict]] = []

    async def charge(self, cost: int) -> None:
        """Grant `cost` forecasts or raise `RateLimited`."""
        self.verdict = await self.limiter.take(self.caller, self.route, cost)
        if self.verdict.allowed:
            self._charged.append((cost, self.verdict))
        else:
            metrics.rate_limit_hits.labels(self.label).inc()
            raise RateLimited(self._refusal(cost), retry_after=self.verdict.wait)

    async def charge_series(self, work: Sequence[int]) -> None:
        """Charge what series of so many sample paths x steps cost beyond the 1 that was charged.

        Raises `RateLimited`, or `InvalidInput` if the limit can never grant as much.
        """
        cost = {
            "items": len(work),
            "request": 1,
            "decode_steps": sum(math.ceil(one / WORK_UNIT) for one in work),
        }[self.by]
        most = self.limiter.quotas.most(self.route)
        if cost > most:
            raise InvalidInput(
                f"The request counts as {cost} forecasts, one for each {WORK_UNIT} sample paths x"
                f" steps begun of a series, and the limit grants at most {most} at once."
                " Ask for fewer sample paths, steps or series."
            )
        if cost > 1:
            await self.charge(cost - 1)

    def _refusal(self, cost: int) -> str:
        assert self.verdict is not None
        if cost == 1:
            return f"The caller's limit of {self.verdict.limit} forecasts is used up."
        if self.by == "decode_steps":
            return (
                f"The caller's limit leaves no room for work that counts as {cost + 1} forecasts."
            )
        return f"The caller's limit leaves no room for a batch of {cost + 1} series."

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


async def charge_series(scope: Scope, work: Sequence[int]) -> None:
    """Charge for series of so many sample paths x steps, but the 1 that was charged at the door.

    Raises `RateLimited` or `InvalidInput`. Does nothing where no limit is set.
    """
    visit: Any = scope.get("state", {}).get(STATE)
    if visit is not None:
        await visit.charge_series(work)
