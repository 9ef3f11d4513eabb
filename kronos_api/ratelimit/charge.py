"""What one request is charged for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

from starlette.types import Scope

from kronos_api.errors import InvalidInput, RateLimited
from kronos_api.ratelimit.limiter import Limiter, Verdict
from kronos_api.ratelimit.quotas import ALL, Quota
from kronos_api.telemetry.metrics import metrics

STATE: Final = "rate_limit"
"""Name of a request's `Charge` in its `scope["state"]`."""

CountedBy = Literal["items", "request", "decode_steps"]
"""What counts as one forecast: a series, a request, or each begun `DECODE_STEPS` of a series."""
DECODE_STEPS: Final = 1024
"""Sample paths x steps: a series of 8 paths and 128 steps counts as one forecast."""
PERIODS: Final = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}


class Charge:
    """The forecasts that a request of `route` costs its caller; `label` is that of metrics."""

    def __init__(
        self, limiter: Limiter, *, caller: str, label: str, route: str, by: CountedBy
    ) -> None:
        self.limiter = limiter
        self.caller = caller
        self.label = label
        self.route = route
        self.by: CountedBy = by
        self.verdict: Verdict | None = None
        self._granted: list[tuple[int, Verdict]] = []

    async def add(self, cost: int) -> None:
        """Charge `cost` forecasts.

        Raises:
            RateLimited: the quota does not allow them; nothing was charged.
        """
        self.verdict = await self.limiter.take(self.caller, self.route, cost)
        if self.verdict.allowed:
            self._granted.append((cost, self.verdict))
        else:
            metrics.rate_limit_hits.labels(self.label).inc()
            raise RateLimited(self._refusal(self.verdict, cost), retry_after=self.verdict.wait)

    async def add_series(self, decode_steps: Sequence[int]) -> None:
        """Charge series of so many sample paths x steps, beyond the 1 that is charged already.

        Raises:
            RateLimited: the quota does not allow them.
            InvalidInput: no quota ever allows as many.
        """
        cost = {
            "items": len(decode_steps),
            "request": 1,
            "decode_steps": sum(math.ceil(one / DECODE_STEPS) for one in decode_steps),
        }[self.by]
        most = self.limiter.quotas.most(self.route)
        if cost > most:
            raise InvalidInput(
                f"The request counts as {cost} forecasts, one for each {DECODE_STEPS} sample paths"
                f" x steps begun of a series, and the limit grants at most {most} at once. Ask for"
                " fewer sample paths, steps or series, or raise KRONOS_RATE_LIMIT_PER_MINUTE."
            )
        if cost > 1:
            await self.add(cost - 1)

    async def give_back(self) -> None:
        """Return all that was charged, because the request was refused before it was decoded."""
        while self._granted:
            cost, granted = self._granted.pop()
            self.verdict = await self.limiter.give_back(self.caller, self.route, cost, granted)

    def count(self) -> None:
        """Count in the metrics what is charged and will not be given back."""
        if self._granted:
            metrics.rate_limit_charged.labels(self.label).inc(
                sum(cost for cost, _ in self._granted)
            )
            self._granted.clear()

    def headers(self) -> dict[str, str]:
        """The state of the caller's quota."""
        return quota_headers(self.verdict)

    def _refusal(self, verdict: Verdict, cost: int) -> str:
        quota = verdict.quota
        setting = "KRONOS_RATE_LIMIT_PER_MINUTE" if quota.name == ALL else "KRONOS_RATE_LIMITS"
        found = f"{verdict.remaining} of {described(quota)} are left"
        remedy = f"Retry in {math.ceil(verdict.wait)} s"
        if self._granted:  # 1 was charged before the body was read
            found = f"the request counts as {cost + 1}, of which 1 is charged, and {found}"
            remedy += ", ask for fewer series, sample paths or steps"
        return f"Rate limit: {found}. {remedy}, or raise {setting}."


def described(quota: Quota) -> str:
    """`100 forecasts per minute`, for the messages of refusals."""
    period = PERIODS.get(quota.seconds, f"{quota.seconds} s")
    return f"{quota.amount} forecasts per {period}"


def quota_headers(verdict: Verdict | None) -> dict[str, str]:
    """The state of a quota as headers; none where no limit was asked."""
    if verdict is None:
        return {}
    return {
        "X-RateLimit-Limit": str(verdict.limit),
        "X-RateLimit-Remaining": str(verdict.remaining),
        "X-RateLimit-Reset": str(verdict.reset),
    }


async def charge_series(scope: Scope, decode_steps: Sequence[int]) -> None:
    """Charge series of so many sample paths x steps, beyond the 1 that the middleware charged.

    Does nothing where no limit is set. Raises `RateLimited` or `InvalidInput`.
    """
    charge: Any = scope.get("state", {}).get(STATE)
    if charge is not None:
        await charge.add_series(decode_steps)
