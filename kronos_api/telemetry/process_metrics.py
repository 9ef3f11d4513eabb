"""How this worker fares, as gauges.

Any worker may be asked for the metrics of all, so each writes its own down every second, and not
only when it is asked.
"""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from contextlib import suppress
from typing import Final, Protocol

import psutil

from kronos_api.telemetry import logging, metrics, multiprocess

PAUSE: Final = 1.0
PROCESS_EVERY: Final = 5
"""Pauses between two looks at the process, which take longer than one at the model's load."""

_lock = threading.Lock()
_counted = 0.0  # of this process' processor time, in seconds


class Load(Protocol):
    """What the model has to do."""

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
        """Bytes of keys and values that these may hold."""
        ...


async def watch(load: Load) -> None:
    """Write down how this worker fares, until cancelled; it then serves no more."""
    try:
        while True:
            await asyncio.to_thread(note_process)
            for _ in range(PROCESS_EVERY):
                note_load(load)
                await asyncio.sleep(PAUSE)
    finally:
        metrics.end()


def note_load(load: Load) -> None:
    """Write down what the model has to do."""
    metrics.mend()
    metrics.QUEUE_DEPTH.set(load.queue_depth)
    metrics.ACTIVE_SERIES.set(load.active)
    metrics.KV_CACHE_BYTES.set(load.kv_cache_bytes)
    note_log()


def note_log() -> None:
    """Count the log lines that this process lost."""
    if dropped := logging.take_dropped():
        metrics.LOG_LINES_DROPPED.inc(dropped)


def look_after_master() -> None:
    """What a master does for its metrics, as often as it looks at its workers."""
    multiprocess.mend()
    metrics.mend()
    note_log()


def note_death() -> None:
    """Count a worker that has died; in the master, which alone knows."""
    metrics.mend()
    metrics.WORKER_DEATHS.inc()


def note_process() -> None:
    """Write down what this process uses; any thread may call it."""
    global _counted
    # To look, it needs a file descriptor; without one left, the rest is still worth telling.
    with suppress(OSError, psutil.Error):
        process = psutil.Process()
        metrics.RESIDENT_MEMORY.set(process.memory_info().rss)
        metrics.THREADS.set(process.num_threads())
        metrics.OPEN_FILES.set(process.num_fds())
        metrics.START_TIME.set(process.create_time())
    metrics.MAX_FILES.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    with _lock:
        used = time.process_time()
        metrics.CPU_SECONDS.inc(used - _counted)
        _counted = used
