"""Quotas of a caller, and how settings write them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from limits import parse_many

from kronos_api.errors import StartupError

ALL = "all"
"""Name of the quota over all routes."""


@dataclass(frozen=True, slots=True)
class Quota:
    """`amount` forecasts in each window of `seconds`.

    Windows begin at multiples of `seconds` by the clock of the store.
    """

    name: str
    amount: int
    seconds: int

    def window(self, now: float) -> int:
        """Number of the window at `now`, in seconds since the epoch."""
        return int(now // self.seconds)

    def end(self, window: int) -> int:
        """End of `window`, in seconds since the epoch."""
        return (window + 1) * self.seconds

    def key(self, caller: str) -> str:
        """Key of `caller` in the store; braces keep a caller on one node of a Redis cluster."""
        return f"kronos:rate:{{{caller}}}:{self.name}:{self.amount}/{self.seconds}"


@dataclass(frozen=True, slots=True)
class Quotas:
    """The quotas of each route: the one over all, and its own."""

    per_minute: int
    routes: Mapping[str, tuple[Quota, ...]] = field(default_factory=dict)

    def of(self, route: str) -> tuple[Quota, ...]:
        """All quotas of a call of `route`."""
        return (Quota(ALL, self.per_minute, 60), *self.routes.get(route, ()))

    def most(self, route: str) -> int:
        """Forecasts that `route` grants at once, at most."""
        return min(quota.amount for quota in self.of(route))

    def check(self, routes: Collection[str]) -> None:
        """Raises `StartupError` if a quota names a route that is not in `routes`."""
        if unknown := sorted(set(self.routes) - set(routes)):
            known = ", ".join(sorted(routes))
            raise StartupError(
                f"KRONOS_RATE_LIMITS: there is no route {unknown[0]!a}; routes are {known}"
            )


def parse_routes(text: str) -> dict[str, tuple[Quota, ...]]:
    """Read `batch=10/minute;200/hour, single=2/second`; raises `StartupError`."""
    routes: dict[str, tuple[Quota, ...]] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, limits = (part.strip() for part in entry.partition("="))
        quotas = _quotas(name, limits)
        if not name or not quotas or name in routes:
            raise StartupError(
                f"KRONOS_RATE_LIMITS: {entry!a} must have the form batch=10/minute;200/hour, with"
                " each route once and amounts of at least 1"
            )
        routes[name] = quotas
    return routes


def _quotas(name: str, limits: str) -> tuple[Quota, ...]:
    """The quotas in `limits`; none if one of them cannot be parsed."""
    found = []
    for limit in limits.split(";"):
        try:
            (item,) = parse_many(limit.strip())
        except ValueError:
            return ()
        found.append(Quota(name, item.amount, item.get_expiry()))
    return tuple(found) if all(one.amount > 0 and one.seconds > 0 for one in found) else ()
