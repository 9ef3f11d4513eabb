"""What a caller may ask for, as settings write it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from limits import parse_many

from kronos_api.errors import StartupError

ALL = "all"
"""The quota that holds over all routes."""


@dataclass(frozen=True, slots=True)
class Quota:
    """`amount` forecasts in each window of `seconds`.

    Windows follow the clock of whoever counts: they begin at multiples of `seconds`.
    """

    name: str
    amount: int
    seconds: int

    def window(self, now: float) -> int:
        """Number of the window at `now`, in seconds since the epoch."""
        return int(now // self.seconds)

    def end(self, window: int) -> int:
        """When `window` ends, in seconds since the epoch."""
        return (window + 1) * self.seconds

    def key(self, caller: str) -> str:
        """Where `caller` is counted; in braces, so that a Redis cluster keeps a caller together."""
        return f"kronos:rate:{{{caller}}}:{self.name}:{self.amount}/{self.seconds}"


@dataclass(frozen=True, slots=True)
class Quotas:
    """The quotas of each route: the one over all, and its own."""

    per_minute: int
    routes: Mapping[str, tuple[Quota, ...]] = field(default_factory=dict)

    def of(self, route: str) -> tuple[Quota, ...]:
        """All quotas that a call of `route` counts under."""
        return (Quota(ALL, self.per_minute, 60), *self.routes.get(route, ()))

    def most(self, route: str) -> int:
        """Forecasts that `route` can ever grant at once."""
        return min(quota.amount for quota in self.of(route))

    def check(self, routes: Collection[str]) -> None:
        """Raises `StartupError` if there are quotas of other than `routes`."""
        if strange := sorted(set(self.routes) - set(routes)):
            known = ", ".join(sorted(routes))
            raise StartupError(f"KRONOS_RATE_LIMITS: {strange[0]!a} is none of the routes {known}")


def parse_routes(text: str) -> dict[str, tuple[Quota, ...]]:
    """Read `batch=10/minute;200/hour, single=2/second`; raises `StartupError`."""
    routes: dict[str, tuple[Quota, ...]] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, limits = (part.strip() for part in entry.partition("="))
        quotas = _quotas(name, limits)
        if not name or not quotas or name in routes:
            raise StartupError(
                f"KRONOS_RATE_LIMITS: {entry!a} is not of the form batch=10/minute;200/hour,"
                " each route once, amounts and times at least 1"
            )
        routes[name] = quotas
    return routes


def _quotas(name: str, limits: str) -> tuple[Quota, ...]:
    """The quotas in `limits`; none if one of them is no quota."""
    found = []
    for limit in limits.split(";"):
        try:
            (item,) = parse_many(limit.strip())
        except ValueError:
            return ()
        found.append(Quota(name, item.amount, item.get_expiry()))
    return tuple(found) if all(one.amount > 0 and one.seconds > 0 for one in found) else ()
