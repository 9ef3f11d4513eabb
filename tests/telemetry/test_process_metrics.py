"""What a worker writes down of itself."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from kronos_api.telemetry import metrics, process_metrics
from kronos_api.telemetry.metrics import REGISTRY
from tests.web import until


@dataclass
class Busy:
    """A model with something to do."""

    queue_depth: int = 3
    active: int = 2
    kv_cache_bytes: int = 4096


def told(name: str) -> float:
    value = REGISTRY.get_sample_value(f"kronos_{name}")
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


def test_the_process() -> None:
    process_metrics.note_process()
    here = psutil.Process()
    assert told("process_resident_memory_bytes") > 20e6
    assert told("process_threads") >= 1
    assert 3 <= told("process_open_fds") <= told("process_max_fds")
    assert told("process_start_time_seconds") == here.create_time()


def test_processor_time_adds_up() -> None:
    process_metrics.note_process()
    before = told("process_cpu_seconds_total")
    until_then = time.process_time() + 0.05
    while time.process_time() < until_then:
        pass
    process_metrics.note_process()
    after = told("process_cpu_seconds_total")
    assert before + 0.05 <= after <= time.process_time()


def test_without_a_file_descriptor_left_the_rest_is_told() -> None:
    with open_files_bounded_by_those_open():
        before = told("process_cpu_seconds_total")
        process_metrics.note_process()
        assert told("process_cpu_seconds_total") > before
        assert told("process_max_fds") == 0


async def test_the_load_is_written_down_unasked() -> None:
    load = Busy()
    metrics.begin()
    watching = asyncio.create_task(process_metrics.watch(load))
    await until(lambda: told("queue_depth") == 3, 30)
    assert (told("active_series"), told("kv_cache_bytes"), told("workers")) == (2, 4096, 1)
    load.queue_depth = 0
    await until(lambda: told("queue_depth") == 0, 30)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert told("workers") == 0
    assert told("process_start_time_seconds") <= time.time()
