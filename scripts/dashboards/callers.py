"""Requests, quotas and refusals by caller."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panel import Panel, of, quantile, total

CHARGED: Final = "kronos_rate_limit_charged_total"
REFUSED: Final = 'status=~"[45].."'
CALLER: Final = 'container=~"$container"'
CALLERS: Final = (
    Panel(
        "Requests by caller",
        "reqps",
        "Requests a second; `other` are callers that no entry of the whitelist names.",
        {"{{container}}": total("kronos_caller_requests_total", "container", CALLER)},
    ),
    Panel(
        "Failed or refused by caller",
        "percentunit",
        "Share of a caller's requests with status 400 or above.",
        {
            "{{container}}": (
                f"{total('kronos_caller_requests_total', 'container', CALLER, REFUSED)}"
                f" / {total('kronos_caller_requests_total', 'container', CALLER)}"
            )
        },
    ),
    Panel(
        "Quota used by caller",
        "percentunit",
        "Forecasts charged in a minute, as a share of KRONOS_RATE_LIMIT_PER_MINUTE.",
        {
            "{{container}}": (
                f"sum by (container) (increase({of(CHARGED, CALLER)}[1m]))"
                f" / scalar(max({of('kronos_rate_limit_per_minute')}))"
            )
        },
        limit=1,
    ),
    Panel(
        "Refused by the rate limit",
        "reqps",
        "429 a second. More than 100 in five minutes: KronosRateLimitHits.",
        {"{{container}}": total("kronos_rate_limit_hits_total", "container", CALLER)},
    ),
    Panel(
        "Bodies that are too large",
        "reqps",
        "413 a second.",
        {"{{container}}": total("kronos_request_size_rejections_total", "container", CALLER)},
    ),
    Panel(
        "Identification",
        "reqps",
        "`refused` are not listed, for `unknown` DNS gave no answer, `unnamed` no proxy named.",
        {"{{event}}": total("kronos_security_events_total", "event", CALLER)},
    ),
    Panel(
        "Slow callers",
        "ops",
        "Connections closed because a deadline for headers, body or response had passed.",
        {"{{deadline}}": total("kronos_slow_callers_total", "deadline")},
    ),
    Panel(
        "Connections refused, requests read later",
        "ops",
        "Connections closed because their peer has too many; requests without a caller that wait"
        " because their unlisted peer sends too many.",
        {
            "{{peer}}": total("kronos_connections_refused_total", "peer"),
            "read later": total("kronos_paced_requests_total"),
        },
    ),
    Panel(
        "Questions to DNS, 99th percentile",
        "s",
        "Up to KRONOS_DNS_TIMEOUT; `failed` without an answer.",
        {"{{result}}": quantile(0.99, of("kronos_dns_query_seconds_bucket"), "le, result")},
    ),
    Panel(
        "Workers that limit locally",
        "none",
        "Above 0 Redis is unavailable to them: KronosRateLimitDegraded.",
        {"{{instance}}": of("kronos_rate_limit_degraded")},
    ),
    Panel(
        "Requests that Redis did not count in time",
        "ops",
        "Requests a second that were counted locally instead.",
        {"{{instance}}": total("kronos_rate_limit_store_failures_total", "instance")},
    ),
)
