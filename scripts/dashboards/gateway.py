"""Probes from outside, the certificate, nginx and Redis."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.panel import RATE, Panel

GATEWAY: Final = (
    Panel(
        "Probes",
        "bool_yes_no",
        "Readiness of the service on its network, and of the gateway over TLS, from outside.",
        {"{{job}}": "probe_success"},
        "stat",
    ),
    Panel(
        "Certificate",
        "s",
        "Time until the first certificate of the chain expires. Below 14 days: an alert.",
        {"{{instance}}": "probe_ssl_earliest_cert_expiry - time()"},
        "stat",
    ),
    Panel(
        "Time of a probe",
        "s",
        "With DNS, connection and TLS.",
        {"{{job}}": "probe_duration_seconds"},
    ),
    Panel(
        "Connections of the gateway",
        "none",
        "Of 8,192 in all. Each request in progress has two: its caller's, and one to a replica.",
        {
            "active": "nginx_connections_active",
            "reading": "nginx_connections_reading",
            "writing": "nginx_connections_writing",
            "idle": "nginx_connections_waiting",
        },
    ),
    Panel(
        "Requests of the gateway",
        "reqps",
        "All requests, also those that no replica sees.",
        {"requests": f"sum(rate(nginx_http_requests_total{RATE}))"},
    ),
    Panel(
        "Connections dropped",
        "ops",
        "Accepted but not handled: nginx reached a limit.",
        {
            "dropped": (
                f"sum(rate(nginx_connections_accepted{RATE}))"
                f" - sum(rate(nginx_connections_handled{RATE}))"
            )
        },
    ),
    Panel(
        "Redis", "bool_yes_no", "Whether Redis answers its exporter.", {"up": "redis_up"}, "stat"
    ),
    Panel(
        "Memory of Redis",
        "bytes",
        "Without free memory it refuses to count: KronosRedisMemoryHigh.",
        {"used": "redis_memory_used_bytes", "limit": "redis_memory_max_bytes"},
    ),
    Panel(
        "Commands of Redis",
        "ops",
        "Commands a second, mostly of the rate limit.",
        {"commands": f"sum(rate(redis_commands_processed_total{RATE}))"},
    ),
)
