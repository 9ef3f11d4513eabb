"""Metrics of the service, in Prometheus' terms.

All of them can be told for several worker processes together: counters and histograms add up,
gauges add up or the highest counts. Where there are several is decided before this module is
imported, by `multiprocess.prepare`. The `container` label is never taken from a request's headers;
callers that are not known by name are "other".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from kronos_api.telemetry import multiprocess
from kronos_api.telemetry.slots import Slots

# A time of creation beside each counter: as many series again, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_FOLDER: Final = multiprocess.prepared()
SLOTS: Final = Slots(_FOLDER) if _FOLDER else None
"""Where the workers keep their metrics; None if this process is alone."""

REGISTRY: Final = CollectorRegistry()
if SLOTS is None:
    ProcessCollector(registry=REGISTRY)
else:
    values.ValueClass = values.MultiProcessValue(SLOTS.own)  # type: ignore[no-untyped-call]

OTHER: Final = "other"
"""The `container` label of a caller that is not known by name."""

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 16, 32, 64, 128, 256, 400, 512, 1024, 2048)


def _counter(name: str, help: str, *labels: str) -> Counter:
    return Counter(name, help, labels, registry=REGISTRY)


def _seconds(name: str, help: str, *labels: str) -> Histogram:
    return Histogram(name, help, labels, buckets=_LATENCIES, registry=REGISTRY)


def _gauge(
    name: str, help: str, *labels: str, over_workers: Literal["livesum", "livemax"] = "livesum"
) -> Gauge:
    return Gauge(name, help, labels, registry=REGISTRY, multiprocess_mode=over_workers)


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
CONNECTIONS_REFUSED = _counter(
    "kronos_connections_refused",
    "Connections closed at accept because their peer (listed or unlisted) has too many.",
    "peer",
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
    over_workers="livemax",
)
ADMISSION_REFUSALS = _counter(
    "kronos_admission_refusals",
    "Requests refused because too many, or too large ones, were in progress.",
)
WORKERS = _gauge("kronos_workers", "Processes that serve.")
RESIDENT_MEMORY = _gauge(
    "kronos_process_resident_memory_bytes",
    "Memory of the workers; what they share counts for each of them.",
)
CPU_SECONDS = _counter("kronos_process_cpu_seconds", "Processor time of the workers.")
THREADS = _gauge("kronos_process_threads", "Threads of the workers.")
OPEN_FILES = _gauge(
    "kronos_process_open_fds",
    "Open files and connections of the worker that has most.",
    over_workers="livemax",
)
MAX_FILES = _gauge(
    "kronos_process_max_fds",
    "Open files and connections that a worker may have.",
    over_workers="livemax",
)
START_TIME = _gauge(
    "kronos_process_start_time_seconds",
    "When the youngest worker started, in seconds since the epoch.",
    over_workers="livemax",
)


def begin() -> None:
    """Count this process as one that serves; if it ends before `end`, as one that died."""
    WORKERS.set(1)
    if SLOTS is not None:
        SLOTS.begin()


def end() -> None:
    """Count this process no more as one that serves."""
    WORKERS.set(0)
    if SLOTS is not None:
        SLOTS.end()


def render() -> bytes:
    """All metrics of all workers in Prometheus' text format."""
    if SLOTS is None:
        return generate_latest(REGISTRY)
    SLOTS.clear()
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(SLOTS.folder))  # type: ignore[no-untyped-call]
    registry.register(Folder(SLOTS))
    return generate_latest(registry)


class Folder(Collector):
    """What the folder of the workers' metrics tells itself: who died, and how full it is."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def collect(self) -> Iterator[Metric]:
        system = os.statvfs(self._slots.folder)
        yield CounterMetricFamily(
            "kronos_worker_deaths",
            "Workers that ended while they served.",
            self._slots.deaths(),
        )
        yield GaugeMetricFamily(
            "kronos_metrics_folder_bytes",
            "What the workers' metrics take of their file system.",
            self._slots.used_bytes(),
        )
        yield GaugeMetricFamily(
            "kronos_metrics_file_system_bytes",
            "Size of the file system that the workers' metrics are in.",
            system.f_blocks * system.f_frsize,
        )
        yield GaugeMetricFamily(
            "kronos_metrics_file_system_free_bytes",
            "Room on the file system that the workers' metrics are in.",
            system.f_bavail * system.f_frsize,
        )
