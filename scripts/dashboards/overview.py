"""What an operator sees first: alerts, errors, latency, saturation."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panel import (
    FAILED,
    FORECASTS,
    LATENCY,
    NO_PROBES,
    RATE,
    Panel,
    of,
    quantile,
    share,
    total,
)

OVERVIEW: Final = (
    Panel(
        "Ready replicas",
        "none",
        "Replicas that have their model. Fewer than KRONOS_REPLICAS: KronosReplicaMissing.",
        {"ready": f"count({of('kronos_model_info')} == 1)"},
        "stat",
        4,
    ),
    Panel(
        "Failed forecasts",
        "percentunit",
        "Share of forecasts answered with 500 or 504. Above 5 %: KronosErrors.",
        {"failed": f"sum(rate({FAILED}{RATE})) / sum(rate({FORECASTS}{RATE}))"},
        "stat",
        4,
        0.05,
    ),
    Panel(
        "95th percentile",
        "s",
        "Time of a forecast that succeeds. The target is 2 s; above 5 s: KronosLatencyHigh.",
        {"p95": quantile(0.95, LATENCY)},
        "stat",
        4,
        2,
    ),
    Panel(
        "Error budget left",
        "percentunit",
        "Of the forecasts of three days that may fail (0.1 %), the share that has not failed.",
        {"left": "1 - kronos:forecasts_failed:ratio_rate3d / 0.001"},
        "stat",
        4,
    ),
    Panel(
        "Build",
        "none",
        "Replicas by version and commit; two builds at once are a deployment in progress.",
        {"{{version}} {{commit}}": f"count by (version, commit) ({of('kronos_build_info')})"},
        "stat",
        8,
    ),
    Panel(
        "Requests by route",
        "reqps",
        "Requests answered a second, without probes and scrapes.",
        {"{{route}}": total("kronos_requests_total", "route", NO_PROBES)},
    ),
    Panel(
        "Time of a forecast",
        "s",
        "Percentiles of forecasts that succeed, with their body.",
        {f"p{q * 100:g}": quantile(q, LATENCY) for q in (0.5, 0.95, 0.99)},
        limit=2,
    ),
    Panel(
        "Errors by code",
        "reqps",
        "Error responses a second; docs/troubleshooting.md has each code.",
        {"{{code}}": total("kronos_errors_total", "code")},
    ),
    Panel(
        "Saturation",
        "percentunit",
        "Share of each limit in use. At 100 % of the queue forecasts are refused with 503.",
        {
            "queue": share("kronos_queue_depth", "kronos_queue_limit"),
            "KV cache": share("kronos_kv_cache_bytes", "kronos_kv_cache_limit_bytes"),
            "requests": share("kronos_concurrent_requests", "kronos_concurrent_requests_limit"),
            "memory": share("kronos_memory_used_bytes", "kronos_memory_limit_bytes"),
        },
        limit=0.9,
    ),
    Panel(
        "Alerts that fire",
        "none",
        "The Watchdog always fires; each other alert has a page in docs/runbooks.",
        {
            "{{alertname}} ({{severity}})": (
                'count by (alertname, severity) (ALERTS{alertstate="firing"})'
            )
        },
        "table",
    ),
    Panel(
        "Burn rates",
        "none",
        "How many times as fast as allowed the error budget is used: 1 uses it up in 30 days.",
        {
            "5 minutes": "kronos:forecasts_failed:ratio_rate5m / 0.001",
            "1 hour": "kronos:forecasts_failed:ratio_rate1h / 0.001",
            "6 hours": "kronos:forecasts_failed:ratio_rate6h / 0.001",
        },
        limit=14.4,
    ),
)
