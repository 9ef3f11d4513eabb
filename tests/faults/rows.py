"""What must hold, row by row: a fault or load, its bar, and what checks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from tests.faults.figures import Figure


@dataclass(frozen=True, slots=True)
class Row:
    """One fault or load.

    Attributes:
        name: of the command line.
        tests: existing tests that check the bar; all must pass, and one must not be skipped.
        measure: `module:function` of a measurement with figures, or "".
        command: a benchmark with an exit status, as arguments of `python -m`; long form only.
        short: whether the measurement is part of the short form.
    """

    name: str
    fault: str
    bar: str
    tests: tuple[str, ...] = ()
    measure: str = ""
    command: tuple[str, ...] = ()
    short: bool = False

    def figures(self, *, long: bool) -> list[Figure]:
        """Run the measurement."""
        module, _, function = self.measure.partition(":")
        run: Callable[..., list[Figure]] = getattr(import_module(module), function)
        return run(long=long)


ROWS: Final = (
    Row(
        "fuzz",
        "10,000 requests with wrong types, NaN, ±Inf, 1e39, unsorted, repeated and nested parts",
        "no 500; every response as the OpenAPI document has it",
        measure="tests.faults.fuzz:measure",
        short=True,
    ),
    Row(
        "malformed",
        "malformed HTTP: conflicting lengths, cut chunks, headers of 64 KB, compressed bombs",
        "4xx or a closed connection; no worker exits",
        tests=("tests/server/test_malformed.py",),
    ),
    Row(
        "overload",
        "three times the capacity",
        "only 200, 429, 503; median refusal < 50 ms; /health p99 < 100 ms; accepted ones in time",
        measure="tests.faults.overload:measure",
        tests=("tests/middleware/test_admission.py", "tests/batching/test_scheduler.py"),
    ),
    Row(
        "quota",
        "more than 100 calls a window of each of 10 callers, 2 replicas of 2 workers",
        "exactly 100 pass",
        tests=("tests/ratelimit/test_faults.py::test_exactly_the_limit_passes",),
    ),
    Row(
        "kills",
        "`kill -9` of a worker every 5 s for 5 minutes",
        "at most the requests in that worker are lost; counters never go back",
        measure="tests.faults.kills:measure",
        tests=("tests/server/test_gunicorn.py::test_killed_worker_loses_only_its_own_requests",),
    ),
    Row(
        "rollout",
        "rolling updates and SIGTERM behind the gateway, two replicas",
        "0 failed requests",
        tests=("tests/integration/test_production_rollout.py",),
    ),
    Row(
        "hang",
        "a model that hangs",
        "504 in time; readiness 503; recovery, or a new worker",
        tests=(
            "tests/test_predictor.py::test_hanging_step_times_out_and_the_engine_recovers",
            "tests/test_predictor.py::test_stalled_engine_refuses_forecasts_until_its_step_ends",
            "tests/server/test_server.py::test_stalled_engine_ends_or_replaces_the_worker",
            "tests/server/test_server.py::test_process_with_a_hanging_model_ends_at_once",
            "tests/server/test_mishaps.py::test_hanging_worker_is_replaced",
        ),
    ),
    Row(
        "slow",
        "1,000 slow connections of each kind: headers, body, idle, silent",
        "closed within 15 s; p99 of other callers unmoved (≤ 2 ×)",
        tests=("tests/server/test_slow_clients.py",),
        measure="tests.faults.peers:slow",
    ),
    Row(
        "redis",
        "Redis killed, stopped, flapping",
        "≤ 250 ms added; never above the fallback bound; the alert fires",
        tests=(
            "tests/ratelimit/test_faults.py",
            "tests/ratelimit/test_limiter.py",
            "tests/monitoring/test_faults.py::test_redis_ends_and_fills",
        ),
    ),
    Row(
        "dns",
        "DNS: SERVFAIL, silence, reused addresses, answers from outside",
        "the event loop never stalls; an unlisted caller never passes",
        tests=("tests/security/test_identity.py", "tests/security/test_hosts.py"),
    ),
    Row(
        "soak",
        "30 minutes at 70 % of the capacity, 1 % disconnects, stream readers that leave",
        "memory of a process + ≤ 20 MB after the warm-up; descriptors and threads flat",
        tests=("tests/test_memory.py",),
        command=("benchmarks.soak",),
    ),
    Row(
        "flood",
        "one-byte chunks, 16,000 header lines, requests or probes of an unlisted peer",
        "/health ≤ 100 ms; median of listed callers ≤ 2 ×",
        measure="tests.faults.peers:flooding",
        tests=("tests/server/test_parser.py",),
    ),
    Row(
        "unfinished",
        "1,000 unfinished bodies or idle connections of one unlisted peer",
        "listed callers unmoved (median ≤ 2 ×)",
        measure="tests.faults.peers:unfinished",
        tests=(
            "tests/server/test_connection_limit.py",
            "tests/middleware/test_admission.py::test_unfinished_body_takes_no_place",
        ),
    ),
    Row(
        "paused",
        "one of two replicas paused under 6 keep-alive callers",
        "no caller waits > 10 s after the first failure; all well within 15 s",
        tests=("tests/integration/test_production_hang.py",),
    ),
    Row(
        "files",
        "metrics directory removed, log reader stalled, file of the rate limit removed",
        "the service goes on, recovers by itself and logs it",
        tests=(
            "tests/server/test_mishaps.py::test_removed_metrics_directory_is_restored",
            "tests/server/test_log_reader.py",
            "tests/ratelimit/test_host_store.py::test_file_lost_in_service_is_restored_and_logged",
        ),
    ),
    Row(
        "address",
        "the address of an ended container is taken by another, new and kept connections",
        "no call is allowed after 2 s",
        tests=(
            "tests/security/test_hosts.py::test_reassigned_address_is_refused",
            "tests/security/test_identity.py::test_answer_is_reused_for_two_seconds_at_most",
        ),
    ),
    Row(
        "crowd",
        "20 callers at once, Kronos-small, 400 → 24, int8, two cores",
        "p95 < 2 s",
        measure="tests.faults.peers:crowd",
    ),
    Row(
        "alerts",
        "every alert",
        "fires and clears in a promtool unit test and under its real fault; has a runbook",
        tests=(
            "tests/test_monitoring.py",
            "tests/test_runbooks.py",
            "tests/monitoring/test_faults.py",
        ),
    ),
)
