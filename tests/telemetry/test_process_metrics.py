"""Gauges of one worker: the load of its model, and what its process uses."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from kronos_api.telemetry import process_metrics
from kronos_api.telemetry.metrics import metrics
from tests.web import until


@dataclass
class Busy:
    """A model with something to do."""

    queue_depth: int = 3
    active: int = 2
    kv_cache_bytes: int = 4096


def sample(name: str) -> float:
    value = metrics.registry.get_sample_value(f"kronos_{name}")
    assert value is not None
    return value


@contextmanager
def open_files_bounded_by_those_open() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_usage_of_the_process_is_recorded() -> None:
    process_metrics.record_process()
    here = psutil.Process()
    assert sample("process_resident_memory_bytes") > 20e6
    assert sample("process_threads") >= 1
    assert 3 <= sample("process_open_fds") <= sample("process_max_fds")
    assert sample("process_start_time_seconds") == here.create_time()


def test_cpu_time_adds_up() -> None:
    process_metrics.record_process()
    before = sample("process_cpu_seconds_total")
    until_then = time.process_time() + 0.05
    while time.process_time() < until_then:
        pass
    process_metrics.record_process()
    after = sample("process_cpu_seconds_total")
    assert before + 0.05 <= after <= time.process_time()


def test_without_a_free_file_descriptor_the_rest_is_recorded() -> None:
    with open_files_bounded_by_those_open():
        before = sample("process_cpu_seconds_total")
        process_metrics.record_process()
        assert sample("process_cpu_seconds_total") > before
        assert sample("process_max_fds") == 0


async def test_load_is_recorded_without_a_scrape() -> None:
    load = Busy()
    metrics.workers.set(1)
    watching = asyncio.create_task(process_metrics.record_until_cancelled(load))
    await until(lambda: sample("queue_depth") == 3, 30)
    assert (sample("active_series"), sample("kv_cache_bytes"), sample("workers")) == (2, 4096, 1)
    load.queue_depth = 0
    await until(lambda: sample("queue_depth") == 0, 30)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert sample("workers") == 0
    assert sample("process_start_time_seconds") <= time.time()
