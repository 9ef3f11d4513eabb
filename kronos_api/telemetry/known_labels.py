"""Series that exist from the start, so that the first error is a change and not a new series.

Prometheus' `rate` and `increase` do not see the first value of a series.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kronos_api.errors import error_codes
from kronos_api.telemetry.metrics import OTHER, metrics
from kronos_api.telemetry.phases import PHASES

ANSWERED: Final = "200"
FORECAST_STATUSES: Final = (
    "200",
    "400",
    "401",
    "403",
    "408",
    "409",
    "413",
    "415",
    "422",
    "429",
    "499",
    "500",
    "503",
    "504",
)
"""Statuses of forecasts."""
CALLER_STATUSES: Final = ("200", "400", "429", "500", "503", "504")
"""Statuses of a caller's requests that say how it fares; others appear when they occur."""
LATENCY_STATUSES: Final = ("200", "499", "500", "503", "504")
REFUSALS: Final = ("refused", "unknown", "unnamed", "host_refused", "origin_refused")
DNS_RESULTS: Final = ("answered", "empty", "failed")
FETCH_RESULTS: Final = ("fetched", "failed")
DEADLINES: Final = ("headers", "body", "send")


class CacheOutcome(StrEnum):
    """How a forecast request met the stored responses; `hit` and `miss` are of seeded ones."""

    HIT = "hit"
    MISS = "miss"
    UNSEEDED = "unseeded"
    REPLAYED = "replayed"
    CONFLICT = "conflict"
    IN_PROGRESS = "in_progress"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class KnownLabels:
    """Label values that the settings and the routes determine.

    Attributes:
        routes: templates of all routes but those of scrapes.
        forecasts: those of forecasts among them, by the `endpoint` label.
        containers: entries of the whitelist.
    """

    routes: Collection[str] = ()
    forecasts: Collection[tuple[str, str]] = ()
    containers: Collection[str] = ()

    def expose(self) -> None:
        """Create the series, with the value 0."""
        for route in self.routes:
            metrics.requests.labels(route, ANSWERED)
            metrics.request_duration.labels(route)
        for endpoint, route in self.forecasts:
            for status in FORECAST_STATUSES:
                metrics.requests.labels(route, status)
            for status in LATENCY_STATUSES:
                metrics.prediction_latency.labels(endpoint, status)
            metrics.timeouts.labels(endpoint)
            metrics.prediction_input_size.labels(endpoint)
        for container in dict.fromkeys((*self.containers, OTHER)):
            _expose_caller(container)
        for event in REFUSALS:
            metrics.security_events.labels(event, OTHER)
        for code in error_codes():
            metrics.errors.labels(code)
        for outcome in CacheOutcome:
            metrics.cache_requests.labels(outcome.value)
        for phase in PHASES:
            metrics.phase.labels(phase)
        for result in DNS_RESULTS:
            metrics.dns_query.labels(result)
        for result in FETCH_RESULTS:
            metrics.signing_key_fetches.labels(result)
        for deadline in DEADLINES:
            metrics.slow_callers.labels(deadline)
        for peer in ("listed", "unlisted"):
            metrics.connections_refused.labels(peer)


def _expose_caller(container: str) -> None:
    for status in CALLER_STATUSES:
        metrics.caller_requests.labels(container, status)
    if container != OTHER:
        metrics.security_events.labels("allowed", container)
        metrics.security_events.labels("blocked", container)
    metrics.rate_limit_hits.labels(container)
    metrics.rate_limit_charged.labels(container)
    metrics.size_rejections.labels(container)
