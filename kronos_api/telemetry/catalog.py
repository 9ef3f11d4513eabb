"""The declarations of all metrics: names, help texts, labels, buckets."""

from __future__ import annotations

from typing import Final

from kronos_api.telemetry.definitions import counter, gauge, histogram

CANDLE_BUCKETS: Final = (1, 16, 32, 64, 128, 256, 400, 512, 1024, 2048)
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PHASE_BUCKETS: Final = (0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
DNS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)


class Catalog:
    """What the service counts and measures; `definitions.create` makes the metrics themselves."""

    requests = counter("kronos_requests", "Requests answered.", "route", "status")
    request_duration = histogram(
        "kronos_request_duration_seconds", "Time from a request's headers to its response.", "route"
    )
    concurrent_requests = gauge("kronos_concurrent_requests", "Requests in progress.")
    concurrent_requests_limit = gauge(
        "kronos_concurrent_requests_limit", "Requests in progress that the workers accept."
    )
    connections = gauge("kronos_connections", "Open connections.")
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
    phase = histogram(
        "kronos_phase_seconds",
        "Time of a phase: parse and write of a request, all others of one series.",
        "phase",
        buckets=PHASE_BUCKETS,
    )
    queue_wait = histogram("kronos_queue_wait_seconds", "Time one series waited for the model.")
    model_inference = histogram(
        "kronos_model_inference_seconds", "Time of one series in the model."
    )
    queue_depth = gauge("kronos_queue_depth", "Series that wait for the model.")
    queue_limit = gauge("kronos_queue_limit", "Series that the queues of the workers take.")
    active_series = gauge("kronos_active_series", "Series in the model.")
    kv_cache_bytes = gauge(
        "kronos_kv_cache_bytes", "Bytes of keys and values reserved for the series in the model."
    )
    kv_cache_limit = gauge(
        "kronos_kv_cache_limit_bytes", "Bytes of keys and values that the workers reserve at most."
    )
    decode_batch_size = histogram(
        "kronos_decode_batch_size",
        "Sample paths that share one decode step.",
        buckets=BATCH_BUCKETS,
    )
    candles_decoded = counter(
        "kronos_candles_decoded", "Candles decoded: forecast steps times sample paths."
    )
    decode_tokens = counter(
        "kronos_decode_tokens", "Tokens decoded: two a candle, the coarse s1 and the fine s2."
    )
    engine_failures = counter("kronos_engine_failures", "Forecasts that failed in the model.")
    build_info = gauge(
        "kronos_build_info", "1 for the running build.", "version", "commit", over_workers="livemax"
    )
    replica_info = gauge(
        "kronos_replica_info",
        "1 for the container of this replica.",
        *("container", "hostname"),
        over_workers="livemax",
    )
    replicas = gauge(
        "kronos_replicas", "Replicas that KRONOS_REPLICAS states.", over_workers="livemax"
    )
    model_info = gauge(
        "kronos_model_info",
        "1 for the loaded checkpoints.",
        *("model", "tokenizer", "device", "dtype", "demo"),
        over_workers="livemax",
    )

    caller_requests = counter(
        "kronos_caller_requests",
        "Requests answered, by caller; probes aside.",
        "container",
        "status",
    )
    security_events = counter(
        "kronos_security_events",
        "Callers identified (allowed, refused, blocked, unknown), proxies that named none"
        " (unnamed), and requests refused for their host or origin (host_refused, origin_refused).",
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
    paced_requests = counter(
        "kronos_paced_requests",
        "Requests without a caller that were read later, as their unlisted peer sent too many.",
    )
    size_rejections = counter(
        "kronos_request_size_rejections",
        "Requests refused for the size of their body.",
        "container",
    )
    rate_limit_hits = counter(
        "kronos_rate_limit_hits", "Requests refused by the rate limit.", "container"
    )
    rate_limit_charged = counter(
        "kronos_rate_limit_charged", "Forecasts charged to the quota of a caller.", "container"
    )
    rate_limit_per_minute = gauge(
        "kronos_rate_limit_per_minute",
        "Forecasts that each caller is granted in a minute; 0 without a limit.",
        over_workers="livemax",
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
    cache_requests = counter(
        "kronos_cache_requests",
        "Forecast requests by how they met the stored responses.",
        "outcome",
    )
    cache_bytes = gauge("kronos_cache_bytes", "Memory of stored responses.")
    dns_query = histogram(
        "kronos_dns_query_seconds",
        "Time of a question to DNS about a caller, by its result.",
        "result",
        buckets=DNS_BUCKETS,
    )
    signing_key_fetches = counter(
        "kronos_signing_key_fetches",
        "Fetches of the keys that ServiceAccount tokens are checked with, by their result.",
        "result",
    )

    workers = gauge("kronos_workers", "Processes that serve or load the model.")
    drained = gauge("kronos_drained", "Workers that an operator has drained.")
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
    spans_exported = counter("kronos_spans_exported", "Spans that the collector took.")
    spans_dropped = counter(
        "kronos_spans_dropped", "Spans lost because the collector was slow or did not take them."
    )
    log_lines_dropped = counter(
        "kronos_log_lines_dropped",
        "Log lines lost because the reader of the log stalled or could not be written to.",
    )
