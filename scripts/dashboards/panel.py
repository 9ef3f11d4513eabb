"""Panels of a dashboard, and the expressions that several of them use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHOSEN: Final = 'instance=~"$instance"'
FORECASTS: Final = f'kronos_requests_total{{route=~"/v1/predict/.*", {CHOSEN}}}'
FAILED: Final = f'kronos_requests_total{{route=~"/v1/predict/.*", status=~"500|504", {CHOSEN}}}'
LATENCY: Final = f'kronos_prediction_latency_seconds_bucket{{status="200", {CHOSEN}}}'
NO_PROBES: Final = 'route!~".*(health|ready|metrics).*"'
RATE: Final = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """A panel; `queries` has an expression by the legend of its series."""

    title: str
    unit: str
    description: str
    queries: dict[str, str]
    type: str = "timeseries"
    width: int = 8
    limit: float | None = None
    """A threshold: red from there."""


def quantile(q: float, buckets: str, by: str = "le") -> str:
    """A quantile over a histogram."""
    return f"histogram_quantile({q:g}, sum by ({by}) (rate({buckets}{RATE})))"


def of(metric: str, *labels: str) -> str:
    """`metric` of the chosen replicas."""
    return f"{metric}{{{', '.join((*labels, CHOSEN))}}}"


def total(metric: str, by: str = "", *labels: str) -> str:
    """The rate of a counter, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({of(metric, *labels)}{RATE}))"


def share(used: str, limit: str) -> str:
    """The share of a limit that is used, of all chosen replicas."""
    return f"sum({of(used)}) / sum({of(limit)})"
