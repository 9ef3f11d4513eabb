"""Write Grafana's dashboards to monitoring/grafana/dashboards, from the panels listed here.

    python scripts/dashboards.py [--check]

`--check` writes nothing and exits with 1 if a file differs from what would be written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "monitoring" / "grafana" / "dashboards"
SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
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


@dataclass(frozen=True)
class Dashboard:
    """A dashboard, `kronos-NAME`."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[str, ...] = ("instance",)


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

MODEL: Final = (
    Panel(
        "Time by phase",
        "s",
        "Mean time of a series in each phase: which one makes forecasts slow.",
        {
            "{{phase}}": f"{total('kronos_phase_seconds_sum', 'phase')}"
            f" / {total('kronos_phase_seconds_count', 'phase')}"
        },
    ),
    Panel(
        "Queue",
        "none",
        "Series that wait for the model, and how many may.",
        {
            "waiting": f"sum({of('kronos_queue_depth')})",
            "limit": f"sum({of('kronos_queue_limit')})",
        },
    ),
    Panel(
        "Wait and inference, 95th percentile",
        "s",
        "A long wait asks for more replicas, a long inference for fewer samples or steps.",
        {
            "wait": quantile(0.95, of("kronos_queue_wait_seconds_bucket")),
            "inference": quantile(0.95, of("kronos_model_inference_seconds_bucket")),
        },
    ),
    Panel(
        "Series in the model",
        "none",
        "Series that are decoded together.",
        {"{{instance}}": f"sum by (instance) ({of('kronos_active_series')})"},
    ),
    Panel(
        "Sample paths of a decode step",
        "none",
        "Mean size of a batch; larger batches decode more candles a second.",
        {
            "mean": f"{total('kronos_decode_batch_size_sum')}"
            f" / {total('kronos_decode_batch_size_count')}"
        },
    ),
    Panel(
        "KV cache",
        "bytes",
        "Keys and values reserved, and the limit KRONOS_KV_CACHE_MB; series that do not fit wait.",
        {
            "reserved": f"sum({of('kronos_kv_cache_bytes')})",
            "limit": f"sum({of('kronos_kv_cache_limit_bytes')})",
        },
    ),
    Panel(
        "Candles decoded",
        "ops",
        "Candles a second: forecast steps times sample paths.",
        {"{{instance}}": total("kronos_candles_decoded_total", "instance")},
    ),
    Panel(
        "Tokens decoded",
        "ops",
        "Tokens a second, two for each candle.",
        {"{{instance}}": total("kronos_decode_tokens_total", "instance")},
    ),
    Panel(
        "History of a series",
        "none",
        "Candles that callers send for a series.",
        {
            "median": quantile(0.5, of("kronos_prediction_input_size_bucket")),
            "p95": quantile(0.95, of("kronos_prediction_input_size_bucket")),
        },
    ),
    Panel(
        "Failures and timeouts",
        "ops",
        "Forecasts that failed in the model, and those that missed their deadline.",
        {
            "failures": total("kronos_engine_failures_total"),
            "timeouts {{endpoint}}": total("kronos_timeouts_total", "endpoint"),
        },
    ),
)

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
        "Connections refused",
        "ops",
        "Connections closed because their peer has too many.",
        {"{{peer}}": total("kronos_connections_refused_total", "peer")},
    ),
    Panel(
        "Questions to DNS, 99th percentile",
        "s",
        "Up to KRONOS_DNS_TIMEOUT; `failed` without an answer.",
        {"{{result}}": quantile(0.99, of("kronos_dns_query_seconds_bucket"), "le, result")},
    ),
)

RESOURCES: Final = (
    Panel(
        "Memory",
        "percentunit",
        "Share of the container's limit. Above 90 %: KronosMemoryHigh.",
        {"{{instance}}": f"{of('kronos_memory_used_bytes')} / {of('kronos_memory_limit_bytes')}"},
        limit=0.9,
    ),
    Panel(
        "Memory of the workers",
        "bytes",
        "Resident memory, in which shared pages count once for each worker.",
        {"{{instance}}": of("kronos_process_resident_memory_bytes")},
    ),
    Panel(
        "CPU",
        "none",
        "Cores in use; KRONOS_CPU_LIMIT is the limit.",
        {"{{instance}}": total("kronos_process_cpu_seconds_total", "instance")},
    ),
    Panel(
        "Workers",
        "none",
        "Processes that serve or load the model.",
        {"{{instance}}": of("kronos_workers")},
    ),
    Panel(
        "Workers that died",
        "none",
        "In ten minutes: KronosWorkerDied.",
        {"{{instance}}": f"increase({of('kronos_worker_deaths_total')}[10m])"},
    ),
    Panel(
        "Age of the youngest worker",
        "s",
        "It falls to zero at each start.",
        {"{{instance}}": f"time() - {of('kronos_process_start_time_seconds')}"},
    ),
    Panel(
        "File descriptors",
        "percentunit",
        "Of the worker that has most open. Above 80 %: KronosFileDescriptorsHigh.",
        {"{{instance}}": f"{of('kronos_process_open_fds')} / {of('kronos_process_max_fds')}"},
        limit=0.8,
    ),
    Panel(
        "Connections",
        "none",
        "Open connections.",
        {"{{instance}}": of("kronos_connections")},
    ),
    Panel(
        "Threads",
        "none",
        "Of all workers.",
        {"{{instance}}": of("kronos_process_threads")},
    ),
    Panel(
        "Free space for metrics",
        "percentunit",
        "Of the file system of the metrics directory. Below 20 %: KronosMetricsDirectoryFull.",
        {
            "{{instance}}": f"{of('kronos_metrics_file_system_free_bytes')}"
            f" / {of('kronos_metrics_file_system_bytes')}"
        },
    ),
    Panel(
        "Log lines lost",
        "ops",
        "Lines a second that the reader of stdout did not take: KronosLogLinesLost.",
        {"{{instance}}": total("kronos_log_lines_dropped_total", "instance")},
    ),
)

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
    Panel(
        "Workers that limit locally",
        "none",
        "Above 0 Redis is unavailable to them: KronosRateLimitDegraded.",
        {"{{instance}}": "kronos_rate_limit_degraded"},
    ),
    Panel(
        "Requests that Redis did not count in time",
        "ops",
        "Requests a second that were counted locally instead.",
        {"{{instance}}": f"sum by (instance) (rate(kronos_rate_limit_store_failures_total{RATE}))"},
    ),
)

DASHBOARDS: Final = (
    Dashboard("overview", "Kronos: overview", OVERVIEW),
    Dashboard("model", "Kronos: model", MODEL),
    Dashboard("callers", "Kronos: callers", CALLERS, ("instance", "container")),
    Dashboard("resources", "Kronos: resources", RESOURCES),
    Dashboard("gateway", "Kronos: gateway and Redis", GATEWAY, ()),
)
VARIABLES: Final = {
    "instance": "label_values(kronos_build_info, instance)",
    "container": "label_values(kronos_caller_requests_total, container)",
}
ANNOTATIONS: Final = (
    # A build that was not there a minute ago.
    (
        "Deployments",
        "blue",
        "count by (version, commit) (kronos_build_info)"
        " unless count by (version, commit) (kronos_build_info offset 1m)",
        "{{version}} {{commit}}",
    ),
    ("Workers that died", "red", "increase(kronos_worker_deaths_total[1m]) > 0", "{{instance}}"),
)


def as_json(dashboard: Dashboard) -> str:
    """The file of a dashboard."""
    panels, x, y, height = [], 0, 0, 8
    for number, panel in enumerate(dashboard.panels, 1):
        if x + panel.width > 24:
            x, y = 0, y + height
        panels.append(_panel(number, panel, {"h": height, "w": panel.width, "x": x, "y": y}))
        x += panel.width
    model = {
        "uid": f"kronos-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["kronos"],
        "timezone": "browser",
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "editable": False,
        "links": [{"type": "dashboards", "tags": ["kronos"], "title": "Kronos", "keepTime": True}],
        "templating": {"list": [_variable(name) for name in dashboard.variables]},
        "annotations": {"list": [_annotation(*one) for one in ANNOTATIONS]},
        "panels": panels,
    }
    return json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.type == "timeseries" and panel.limit is not None:
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    instant = panel.type in ("stat", "table")
    return {
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "type": panel.type,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "format": "table" if panel.type == "table" else "time_series",
            }
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def _variable(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": VARIABLES[name], "refId": "A"},
        "refresh": 2,  # when the time range changes: replicas come and go
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _annotation(name: str, color: str, expression: str, title: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": color,
        "expr": expression,
        "step": "60s",
        "titleFormat": title,
    }


def main(arguments: Sequence[str]) -> int:
    """Write or compare all files; 1 if one differs."""
    files = {FOLDER / f"kronos-{one.name}.json": as_json(one) for one in DASHBOARDS}
    if "--check" not in arguments:
        for path, text in files.items():
            path.write_text(text, "utf-8")
        return 0
    stale = [
        path.relative_to(ROOT)
        for path, text in files.items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]
    stale += [path.relative_to(ROOT) for path in FOLDER.glob("*.json") if path not in files]
    for name in stale:
        print(f"{name}: run .venv/bin/python scripts/dashboards.py")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
