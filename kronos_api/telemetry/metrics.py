"""Metrics of the service, in Prometheus' terms.

All of them can be summed over worker processes: counters, histograms and gauges only. The
`container` label is never taken from a request's headers; callers that are not known by name
are "other".
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

# A time of creation beside each counter: as many series again, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

OTHER: Final = "other"
"""The `container` label of a caller that is not known by name."""

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 16, 32, 64, 128, 256, 400, 512, 1024, 2048)


def _counter(name: str, help: str, *labels: str) -> Counter:
    return Counter(name, help, labels, registry=REGISTRY)


def _seconds(name: str, help: str, *labels: str) -> Histogram:
    return Histogram(name, help, labels, buckets=_LATENCIES, registry=REGISTRY)


def _gauge(name: str, help: str, *labels: str) -> Gauge:
    return Gauge(name, help, labels, registry=REGISTRY, multiprocess_mode="livesum")


REQUESTS = _counter("kronos_requests", "Requests answered.", "route", "status")
REQUEST_DURATION = _seconds(
    "kronos_request_duration_seconds", "Time from a request's head to its answer.", "route"
)
CONCURRENT_REQUESTS = _gauge("kronos_concurrent_requests", "Requests being answered.")
PREDICTION_LATENCY = _seconds(
    "kronos_prediction_latency_seconds",
    "Time of a prediction request, from its head to its answer.",
    "endpoint",
    "status",
)
PREDICTION_INPUT_SIZE = Histogram(
    "kronos_prediction_input_size",
    "History of one series, in candles.",
    ("endpoint",),
    buckets=_ROWS,
    registry=REGISTRY,
)
MODEL_INFERENCE = _seconds("kronos_model_inference_seconds", "Time of one series in the model.")
QUEUE_WAIT = _seconds("kronos_queue_wait_seconds", "Time one series waited for the model.")
QUEUE_DEPTH = _gauge("kronos_queue_depth", "Series that wait for the model.")
ACTIVE_SERIES = _gauge("kronos_active_series", "Series in the model.")
KV_CACHE_BYTES = _gauge(
    "kronos_kv_cache_bytes", "Keys and values that the series in the model may hold."
)
ENGINE_FAILURES = _counter("kronos_engine_failures", "Forecasts that failed in the model.")
TOKENS_DECODED = _counter(
    "kronos_tokens_decoded", "Candles decoded: forecast steps times sample paths."
)
TIMEOUTS = _counter("kronos_timeouts", "Predictions that missed their deadline.", "endpoint")
ERRORS = _counter("kronos_errors", "Error answers.", "code")
SECURITY_EVENTS = _counter(
    "kronos_security_events",
    "Callers settled (allowed, refused, unknown) and proxies that named none (unnamed).",
    "event",
    "container",
)
SLOW_CALLERS = _counter(
    "kronos_slow_callers",
    "Connections closed for a head, a body, or an answer not taken, in time.",
    "waited_for",
)
SIZE_REJECTIONS = _counter(
    "kronos_request_size_rejections", "Requests refused for the size of their body.", "container"
)
RATE_LIMIT_HITS = _counter(
    "kronos_rate_limit_hits", "Requests refused by the rate limit.", "container"
)
RATE_LIMIT_STORE_FAILURES = _counter(
    "kronos_rate_limit_store_failures", "Calls that the rate limit's store did not count in time."
)
RATE_LIMIT_ALONE = _gauge(
    "kronos_rate_limit_alone", "Workers that grant their share because the store is out."
)
MODEL_INFO = _gauge(
    "kronos_model_info",
    "1 for the checkpoints that are loaded.",
    "model",
    "tokenizer",
    "device",
    "dtype",
    "demo",
)


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
