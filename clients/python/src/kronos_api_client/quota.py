"""The caller's quota as the X-RateLimit headers of the responses state it."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx


@dataclass(slots=True)
class Quota:
    """What is left of the quota; unknown until a response says so."""

    limit: int | None = None
    remaining: int | None = None
    refills_at: float | None = None
    """On the clock of `now`; None: unknown."""

    def read(self, response: httpx.Response, now: float) -> None:
        """Take over what the headers say."""
        headers = response.headers
        try:
            limit, remaining = (
                int(headers[f"X-RateLimit-{name}"]) for name in ("Limit", "Remaining")
            )
        except (KeyError, ValueError):
            return
        self.limit, self.remaining = limit, remaining
        self.refills_at = None
        try:
            # Both by the service's clock, so that the caller's may be wrong.
            answered = parsedate_to_datetime(headers["Date"]).timestamp()
            self.refills_at = now + max(0.0, int(headers["X-RateLimit-Reset"]) - answered)
        except (KeyError, ValueError):
            return

    def delay(self, cost: int, reserved: int, now: float) -> float | None:
        """Seconds until `cost` forecasts are granted, beside `reserved` that are in progress.

        None if those in progress must end first. A batch counts as its series; where the service
        counts otherwise, its refusals and the remaining quota it states correct this.
        """
        if self.limit is None or self.remaining is None or cost > self.limit:
            return 0.0
        if self.refills_at is not None and now >= self.refills_at:
            self.remaining, self.refills_at = self.limit, None
        if cost + reserved <= self.remaining:
            return 0.0
        if reserved:
            return None
        return 0.0 if self.refills_at is None else self.refills_at - now
