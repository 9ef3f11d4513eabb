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

import structlog
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
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from kronos_api.errors import InternalError, StartupError
from kronos_api.telemetry import multiprocess
from kronos_api.telemetry.slots import Slots

log = structlog.stdlib.get_logger(__name__)

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
    "Callers settled (allowed, refused, unknown), proxies that named none (unnamed), and requests"
    " refused for their host or origin (host_refused, origin_refused).",
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
RATE_LIMIT_EVICTIONS = _counter(
    "kronos_rate_limit_evictions",
    "Counts of callers that the host's file lost to make room for others.",
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
BUILD_INFO = _gauge(
    "kronos_build_info",
    "1 for the build that runs.",
    "version",
    "commit",
    over_workers="livemax",
)
ADMISSION_REFUSALS = _counter(
    "kronos_admission_refusals",
    "Requests refused because too many, or too large ones, were in progress.",
)
LOG_LINES_DROPPED = _counter(
    "kronos_log_lines_dropped",
    "Log lines lost because the reader of the log stalled or could not be written to.",
)
WORKERS = _gauge("kronos_workers", "Processes that serve.")
WORKER_DEATHS = _counter("kronos_worker_deaths", "Workers that ended while they served.")
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
    """Count this process as one that serves."""
    WORKERS.set(1)


def end() -> None:
    """Count this process no more as one that serves."""
    WORKERS.set(0)


def mend() -> None:
    """Make the files of this process again if they were removed; say so, or why it failed.

    To be called often: it is a few calls of stat.
    """
    global _failed
    if SLOTS is None:
        return
    try:
        mended = SLOTS.mend(again=_failed)
        if mended:
            # Mapped now, and not when something is counted: the folder may be lost again by then.
            WORKER_DEATHS.inc(0)
    except (StartupError, OSError) as error:
        if not _failed:
            log.error("metrics_folder_lost", reason=str(error))
        _failed = True
        return
    _failed = False
    if mended:
        log.warning("metrics_folder_restored", folder=str(SLOTS.folder))


_failed = False


def render() -> bytes:
    """All metrics of all workers in Prometheus' text format.

    Raises `InternalError` if the folder was removed and cannot be made again.
    """
    if SLOTS is None:
        return generate_latest(REGISTRY)
    try:
        return _render(SLOTS)
    except (OSError, ValueError):  # files are removed or renamed at this moment
        mend()
    try:
        return _render(SLOTS)
    except (OSError, ValueError) as error:
        log.error("metrics_not_readable", reason=str(error))
        raise InternalError() from None


def _render(slots: Slots) -> bytes:
    mend()
    slots.clear()
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(slots.folder))  # type: ignore[no-untyped-call]
    registry.register(Folder(slots))
    return generate_latest(registry)


class Folder(Collector):
    """How full the folder of the workers' metrics is."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def collect(self) -> Iterator[Metric]:
        """Sizes in bytes, read at each scrape."""
        system = os.statvfs(self._slots.folder)
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
