"""Gauges of this worker: the load of its model, and what its process uses.

Any worker may be scraped for the metrics of all, so each records its own every second, not only
when it is scraped. prometheus_client's own `ProcessCollector` reports the scraped process alone.
"""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from contextlib import suppress
from typing import Final, Protocol

import psutil

from kronos_api.telemetry import logging
from kronos_api.telemetry.directory import restore_directory
from kronos_api.telemetry.metrics import metrics

PAUSE: Final = 1.0
"""Seconds between two records of the model's load."""
PROCESS_EVERY: Final = 5
"""Pauses between two records of the process, which take longer than one of the model's load."""

_lock = threading.Lock()
_counted = 0.0  # seconds of this process's CPU time that are in the metric


class Load(Protocol):
    """The load of the model."""

    @property
    def queue_depth(self) -> int:
        """Forecasts that wait."""
        ...

    @property
    def active(self) -> int:
        """Forecasts in the model."""
        ...

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values reserved for these."""
        ...


async def record_until_cancelled(load: Load) -> None:
    """Record the gauges of this worker until cancelled; it then counts no more as one."""
    try:
        while True:
            await asyncio.to_thread(record_process)
            for _ in range(PROCESS_EVERY):
                record_load(load)
                await asyncio.sleep(PAUSE)
    finally:
        metrics.workers.set(0)


def record_load(load: Load) -> None:
    """Record the load of the model."""
    metrics.restore_files()
    metrics.queue_depth.set(load.queue_depth)
    metrics.active_series.set(load.active)
    metrics.kv_cache_bytes.set(load.kv_cache_bytes)
    _count_dropped_lines()


def maintain_master() -> None:
    """Keep the metrics of the master: to be called as often as it looks at its workers."""
    restore_directory()
    metrics.restore_files()
    _count_dropped_lines()


def count_worker_death() -> None:
    """Count a worker that died; called in the master, which alone learns of it."""
    metrics.restore_files()
    metrics.worker_deaths.inc()


def record_process() -> None:
    """Record what this process uses; any thread may call it."""
    global _counted
    # psutil needs a file descriptor; without a free one, the rest is recorded all the same.
    with suppress(OSError, psutil.Error):
        process = psutil.Process()
        metrics.resident_memory.set(process.memory_info().rss)
        metrics.threads.set(process.num_threads())
        metrics.open_files.set(process.num_fds())
        metrics.start_time.set(process.create_time())
    metrics.max_files.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    with _lock:
        used = time.process_time()
        metrics.cpu_seconds.inc(used - _counted)
        _counted = used


def _count_dropped_lines() -> None:
    if dropped := logging.take_dropped():
        metrics.log_lines_dropped.inc(dropped)
