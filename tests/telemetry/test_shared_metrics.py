"""Metrics of several processes: their counts add up, and outlive the processes.

Each process is a real one. The metrics of this one stay in its memory.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.telemetry.counting import Counting, Sample, created, creating, files

REQUESTS: Sample = ("kronos_requests_total", (("route", "/counted"), ("status", "200")))
DURATIONS: Sample = ("kronos_request_duration_seconds_count", (("route", "/counted"),))
QUEUE: Sample = ("kronos_queue_depth", ())
WORKERS: Sample = ("kronos_workers", ())


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """The directory of a service that lives as long as the test."""
    with creating(tmp_path) as service:
        try:
            yield created(service)
        finally:
            service.kill()


def test_every_process_reports_all(directory: Path) -> None:
    with Counting(directory) as one, Counting(directory) as other:
        one.command("count 3")
        other.command("count 4")
        one.command("set 2")
        other.command("set 5")
        one.command("begin")
        other.command("begin")
        samples = one.samples()
        for sample, value in {REQUESTS: 7, DURATIONS: 7, QUEUE: 7, WORKERS: 2}.items():
            assert samples[sample] == other.samples()[sample] == value
        (info,) = (sample for sample in samples if sample[0] == "kronos_model_info")
        assert samples[info] == 1  # loaded twice, but one checkpoint
        assert samples["kronos_process_resident_memory_bytes", ()] > 20e6
        # A maximum, not a sum.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert samples["kronos_process_max_fds", ()] == limit


def test_counters_outlive_a_kill_and_gauges_do_not(directory: Path) -> None:
    with Counting(directory) as one, Counting(directory) as other:
        for process in (one, other):
            process.command("count 5")
            process.command("set 3")
            process.command("begin")
        before = one.samples()
        other.kill()
        after = one.samples()
        assert (after[QUEUE], after[WORKERS]) == (3, 1)
        counted = [sample for sample in before if sample[0].endswith(("_total", "_bucket", "_sum"))]
        assert len(counted) > 10
        assert all(after[sample] >= before[sample] for sample in counted)
        with Counting(directory) as third:
            assert third.samples()[REQUESTS] == 10
            third.command("count 1")
            assert (one.samples()[REQUESTS], one.samples()[QUEUE]) == (11, 3)


def test_removed_directory_is_restored_and_no_living_process_loses_a_count(directory: Path) -> None:
    with Counting(directory) as one, Counting(directory) as other:
        for process in (one, other):
            process.command("count 3")
            process.command("begin")
        for removals in (1, 2):
            shutil.rmtree(directory)
            for process in (one, other):
                process.command("restore")
                process.command("count 1")
            samples = one.samples()
            assert other.samples()[REQUESTS] == samples[REQUESTS] == 6 + 2 * removals
            assert samples[DURATIONS] == samples[REQUESTS]
            assert samples[WORKERS] == 2
        with Counting(directory) as third:
            third.command("count 1")
            assert one.samples()[REQUESTS] == 11


def test_scrape_restores_a_removed_directory(directory: Path) -> None:
    with Counting(directory) as one:
        one.command("count 3")
        shutil.rmtree(directory)
        assert one.samples()[REQUESTS] == 3
        assert directory.stat().st_mode & 0o777 == 0o700


def test_gauges_of_a_dead_process_are_dropped_and_its_counters_stay(directory: Path) -> None:
    with Counting(directory) as one, Counting(directory) as other:
        other.command("count 2")
        other.command("set 3")
        assert "gauge_livesum_2.db" in files(directory)
        other.kill()
        one.command("drop-dead-gauges")
        assert {"counter_2.db", "histogram_2.db", "gauge_livesum_1.db"} <= files(directory)
        assert not any(name.startswith("gauge") and "_2" in name for name in files(directory))


def test_files_do_not_pile_up(directory: Path) -> None:
    found: set[str] = set()
    with Counting(directory) as one:
        for generation in range(1, 6):
            with Counting(directory) as other:
                other.command("count 10")
                found |= files(directory)
            assert one.samples()[REQUESTS] == 10 * generation
    slots = {name.rpartition("_")[2] for name in found if name.endswith(".db")}
    assert slots == {"1.db", "2.db"}


def test_nothing_counted_is_lost_or_counted_twice_by_kills_at_any_moment(directory: Path) -> None:
    counted = 0
    with Counting(directory) as one:
        for _ in range(5):
            with Counting(directory) as other:
                assert other.command("count-on") == "counted"
                # The other counts on meanwhile; the sum never decreases.
                samples = one.samples()[REQUESTS]
                assert one.samples()[REQUESTS] >= samples > counted
                counted += 1 + len(other.kill())
            # The last count may have been killed before its answer.
            assert counted <= one.samples()[REQUESTS] <= counted + 1
            counted = int(one.samples()[REQUESTS])


def test_process_ids_may_repeat(directory: Path) -> None:
    with Counting(directory, pid=4242) as one:
        one.command("count 3")
        one.command("set 8")
        with Counting(directory, pid=4242) as twin:  # as in another container
            twin.command("count 4")
            assert twin.samples()[REQUESTS] == 7
    with Counting(directory, pid=4242) as later:
        assert later.samples()[REQUESTS] == 7
        assert later.samples()[QUEUE] == 0
        later.command("count 1")
        assert later.samples()[REQUESTS] == 8


def test_forked_process_takes_a_slot_of_its_own(directory: Path) -> None:
    with Counting(directory) as one:
        one.command("count 3")
        assert one.command("fork 4") == "0"
        one.command("count 1")
        assert one.samples()[REQUESTS] == 8


def test_size_of_the_directory_and_its_file_system_are_reported(directory: Path) -> None:
    with Counting(directory) as one:
        samples = one.samples()
    size = samples["kronos_metrics_file_system_bytes", ()]
    free = samples["kronos_metrics_file_system_free_bytes", ()]
    assert 0 < samples["kronos_metrics_directory_bytes", ()] < 4e6
    assert 0 < free <= size
