"""Every metric of the service, in Prometheus' terms.

Values are kept in this process until the composition root calls `metrics.share`: from then on they
are kept in files, so that any worker can report what all of them have counted. All metrics can be
combined over workers: counters and histograms are summed, of gauges the sum or the maximum is
reported. The `container` label is never taken from a request's headers; callers that are not known
by name are "other".
"""

from __future__ import annotations

import os
from typing import Final

import structlog
from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from kronos_api.errors import InternalError, StartupError
from kronos_api.telemetry.definitions import counter, create, gauge, histogram
from kronos_api.telemetry.directory import DirectoryUsage
from kronos_api.telemetry.previous_names import WithPreviousNames
from kronos_api.telemetry.slots import Slots

log = structlog.stdlib.get_logger(__name__)

OTHER: Final = "other"
"""The `container` label of a caller that is not known by name."""

CANDLE_BUCKETS = (1, 16, 32, 64, 128, 256, 400, 512, 1024, 2048)


class Metrics:
    """The metrics of one process. There is one such object a process: `metrics`."""

    requests = counter("kronos_requests", "Requests answered.", "route", "status")
    request_duration = histogram(
        "kronos_request_duration_seconds", "Time from a request's headers to its response.", "route"
    )
    concurrent_requests = gauge("kronos_concurrent_requests", "Requests in progress.")
    errors = counter("kronos_errors", "Error responses.", "code")
    timeouts = counter("kronos_timeouts", "Predictions that missed their deadline.", "endpoint")
    tool_calls = counter("kronos_tool_calls", "Calls of tools over MCP.", "tool", "status")
    admission_refusals = counter(
        "kronos_admission_refusals",
        "Requests refused because too many, or too large ones, were in progress.",
    )

    prediction_latency = histogram(
        "kronos_prediction_latency_seconds",
        "Time of a prediction request, from its headers to its response.",
        "endpoint",
        "status",
    )
    prediction_input_size = histogram(
        "kronos_prediction_input_size",
        "History of one series, in candles.",
        "endpoint",
        buckets=CANDLE_BUCKETS,
    )
    queue_wait = histogram("kronos_queue_wait_seconds", "Time one series waited for the model.")
    model_inference = histogram(
        "kronos_model_inference_seconds", "Time of one series in the model."
    )
    queue_depth = gauge("kronos_queue_depth", "Series that wait for the model.")
    active_series = gauge("kronos_active_series", "Series in the model.")
    kv_cache_bytes = gauge(
        "kronos_kv_cache_bytes", "Bytes of keys and values reserved for the series in the model."
    )
    tokens_decoded = counter(
        "kronos_tokens_decoded", "Candles decoded: forecast steps times sample paths."
    )
    engine_failures = counter("kronos_engine_failures", "Forecasts that failed in the model.")
    build_info = gauge(
        "kronos_build_info", "1 for the running build.", "version", "commit", over_workers="livemax"
    )
    model_info = gauge(
        "kronos_model_info",
        "1 for the loaded checkpoints.",
        *("model", "tokenizer", "device", "dtype", "demo"),
        over_workers="livemax",
    )

    security_events = counter(
        "kronos_security_events",
        "Callers identified (allowed, refused, unknown), proxies that named none (unnamed), and"
        " requests refused for their host or origin (host_refused, origin_refused).",
        "event",
        "container",
    )
    slow_callers = counter(
        "kronos_slow_callers",
        "Connections closed because a caller missed a deadline: headers, body or send.",
        "deadline",
    )
    connections_refused = counter(
        "kronos_connections_refused",
        "Connections closed at accept because their peer (listed or unlisted) has too many.",
        "peer",
    )
    size_rejections = counter(
        "kronos_request_size_rejections",
        "Requests refused for the size of their body.",
        "container",
    )
    rate_limit_hits = counter(
        "kronos_rate_limit_hits", "Requests refused by the rate limit.", "container"
    )
    rate_limit_store_failures = counter(
        "kronos_rate_limit_store_failures",
        "Requests that the rate limit's store did not count in time.",
    )
    rate_limit_evictions = counter(
        "kronos_rate_limit_evictions",
        "Window counters dropped from the host's file to make room for other callers.",
    )
    rate_limit_degraded = gauge(
        "kronos_rate_limit_degraded",
        "Workers that limit callers locally because the store is unavailable.",
    )

    workers = gauge("kronos_workers", "Processes that serve or load the model.")
    worker_deaths = counter("kronos_worker_deaths", "Workers that died while they served.")
    resident_memory = gauge(
        "kronos_process_resident_memory_bytes",
        "Memory of the workers; shared pages count once for each worker.",
    )
    cpu_seconds = counter("kronos_process_cpu_seconds", "CPU time of the workers.")
    threads = gauge("kronos_process_threads", "Threads of the workers.")
    open_files = gauge(
        "kronos_process_open_fds",
        "Open files and connections of the worker that has most.",
        over_workers="livemax",
    )
    max_files = gauge(
        "kronos_process_max_fds",
        "Open files and connections that a worker is allowed.",
        over_workers="livemax",
    )
    start_time = gauge(
        "kronos_process_start_time_seconds",
        "Start of the youngest worker, in seconds since the epoch.",
        over_workers="livemax",
    )
    log_lines_dropped = counter(
        "kronos_log_lines_dropped",
        "Log lines lost because the reader of the log stalled or could not be written to.",
    )

    def __init__(self) -> None:
        self._slots: Slots | None = None
        self._lost = False
        self._create(values.MutexValue)
        ProcessCollector(registry=self.registry)

    def share(self, slots: Slots) -> None:
        """Keep the values in files from here on, in this process and in those it forks.

        What was counted before is dropped: call it before anything is counted. Raises
        `StartupError` if the files cannot be made.
        """
        self._slots = slots
        # The one way to tell prometheus_client the directory; it is read when files are opened.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(slots.directory)
        self._create(values.MultiProcessValue(slots.own))  # type: ignore[no-untyped-call]

    def _create(self, value_class: type) -> None:
        # A creation time beside each counter would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        values.ValueClass = value_class
        self.registry = CollectorRegistry()
        create(self, self.registry)

    def restore_files(self) -> None:
        """Make the files of this process again if they were removed; log that, or the failure.

        To be called often: it costs a few calls of stat.
        """
        if self._slots is None:
            return
        try:
            restored = self._slots.restore(force=self._lost)
            if restored:
                # Mapped here, not at the next count: the directory could be lost again by then.
                self.worker_deaths.inc(0)
        except (StartupError, OSError) as error:
            if not self._lost:
                log.error("metrics_directory_lost", reason=str(error))
            self._lost = True
            return
        self._lost = False
        if restored:
            log.warning("metrics_directory_restored", directory=str(self._slots.directory))

    def drop_dead_gauges(self) -> None:
        """Drop the gauges of processes that have ended; their counters stay."""
        if self._slots is not None:
            self._slots.drop_dead_gauges()

    def render(self) -> bytes:
        """All metrics of all workers in Prometheus' text format.

        Raises `InternalError` if the directory was removed and cannot be made again.
        """
        if self._slots is None:
            return generate_latest(WithPreviousNames(self.registry))
        try:
            return self._render_all(self._slots)
        except (OSError, ValueError):  # files are removed or renamed at this moment
            self.restore_files()
        try:
            return self._render_all(self._slots)
        except (OSError, ValueError) as error:
            log.error("metrics_not_readable", reason=str(error))
            raise InternalError() from None

    def _render_all(self, slots: Slots) -> bytes:
        self.restore_files()
        slots.drop_dead_gauges()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(slots.directory))  # type: ignore[no-untyped-call]
        registry.register(DirectoryUsage(slots))
        return generate_latest(WithPreviousNames(registry))


metrics: Final = Metrics()
"""What every module counts in."""
