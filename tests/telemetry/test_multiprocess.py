"""Metrics of several processes: what they count adds up, whoever dies.

Each process is a real one. This one takes no part: metrics that it has made stay its own.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.telemetry.counting import ROOT, Counting, Sample, files, prepared, preparing

REQUESTS: Sample = ("kronos_requests_total", (("route", "/counted"), ("status", "200")))
DURATIONS: Sample = ("kronos_request_duration_seconds_count", (("route", "/counted"),))
QUEUE: Sample = ("kronos_queue_depth", ())
WORKERS: Sample = ("kronos_workers", ())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """What a service has prepared that lives as long as the test."""
    with preparing(tmp_path) as service:
        try:
            yield prepared(service)
        finally:
            service.kill()


def test_any_process_tells_for_all(folder: Path) -> None:
    with Counting(folder) as one, Counting(folder) as other:
        one.order("count 3")
        other.order("count 4")
        one.order("set 2")
        other.order("set 5")
        one.order("begin")
        other.order("begin")
        told = one.samples()
        for sample, value in {REQUESTS: 7, DURATIONS: 7, QUEUE: 7, WORKERS: 2}.items():
            assert told[sample] == other.samples()[sample] == value
        (info,) = (sample for sample in told if sample[0] == "kronos_model_info")
        assert told[info] == 1  # loaded twice, but one checkpoint
        assert told["kronos_process_resident_memory_bytes", ()] > 20e6
        # One that is the highest of all, not their sum.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert told["kronos_process_max_fds", ()] == limit


def test_counters_outlive_a_kill_and_gauges_do_not(folder: Path) -> None:
    with Counting(folder) as one, Counting(folder) as other:
        for process in (one, other):
            process.order("count 5")
            process.order("set 3")
            process.order("begin")
        before = one.samples()
        other.kill()
        after = one.samples()
        assert (after[QUEUE], after[WORKERS]) == (3, 1)
        counted = [sample for sample in before if sample[0].endswith(("_total", "_bucket", "_sum"))]
        assert len(counted) > 10
        assert all(after[sample] >= before[sample] for sample in counted)
        with Counting(folder) as third:
            assert third.samples()[REQUESTS] == 10
            third.order("count 1")
            assert (one.samples()[REQUESTS], one.samples()[QUEUE]) == (11, 3)


def test_a_removed_folder_is_made_again_and_no_living_process_loses_a_count(folder: Path) -> None:
    with Counting(folder) as one, Counting(folder) as other:
        for process in (one, other):
            process.order("count 3")
            process.order("begin")
        for removals in (1, 2):
            shutil.rmtree(folder)
            for process in (one, other):
                process.order("mend")
                process.order("count 1")
            told = one.samples()
            assert other.samples()[REQUESTS] == told[REQUESTS] == 6 + 2 * removals
            assert told[DURATIONS] == told[REQUESTS]
            assert told[WORKERS] == 2
        with Counting(folder) as third:
            third.order("count 1")
            assert one.samples()[REQUESTS] == 11


def test_a_scrape_makes_a_removed_folder_again(folder: Path) -> None:
    with Counting(folder) as one:
        one.order("count 3")
        shutil.rmtree(folder)
        assert one.samples()[REQUESTS] == 3
        assert folder.stat().st_mode & 0o777 == 0o700


def test_what_has_died_is_told_to_be_forgotten(folder: Path) -> None:
    with Counting(folder) as one:
        one.order("count 2")
        one.order("set 3")
    assert "gauge_livesum_1.db" in files(folder)
    script = "from kronos_api.telemetry.multiprocess import forget; forget()"
    environment = dict(os.environ) | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)
    assert {"counter_1.db", "histogram_1.db"} <= files(folder)
    assert not any(name.startswith("gauge") for name in files(folder))


def test_files_do_not_pile_up(folder: Path) -> None:
    found: set[str] = set()
    with Counting(folder) as one:
        for generation in range(1, 6):
            with Counting(folder) as other:
                other.order("count 10")
                found |= files(folder)
            assert one.samples()[REQUESTS] == 10 * generation
    slots = {name.rpartition("_")[2] for name in found if name.endswith(".db")}
    assert slots == {"1.db", "2.db"}


def test_nothing_counted_is_lost_or_counted_twice_by_kills_at_any_moment(folder: Path) -> None:
    counted = 0
    with Counting(folder) as one:
        for _ in range(5):
            with Counting(folder) as other:
                assert other.order("count-on") == "counted"
                # While this is asked, the other goes on; what it counts is never told as less.
                told = one.samples()[REQUESTS]
                assert one.samples()[REQUESTS] >= told > counted
                counted += 1 + len(other.kill())
            # What was counted last may not have been answered any more.
            assert counted <= one.samples()[REQUESTS] <= counted + 1
            counted = int(one.samples()[REQUESTS])


def test_a_process_id_may_be_given_out_again(folder: Path) -> None:
    with Counting(folder, pid=4242) as one:
        one.order("count 3")
        one.order("set 8")
        with Counting(folder, pid=4242) as twin:  # as in another container
            twin.order("count 4")
            assert twin.samples()[REQUESTS] == 7
    with Counting(folder, pid=4242) as later:
        assert later.samples()[REQUESTS] == 7
        assert later.samples()[QUEUE] == 0
        later.order("count 1")
        assert later.samples()[REQUESTS] == 8


def test_a_fork_counts_for_itself(folder: Path) -> None:
    with Counting(folder) as one:
        one.order("count 3")
        assert one.order("fork 4") == "0"
        one.order("count 1")
        assert one.samples()[REQUESTS] == 8


def test_the_folder_tells_how_full_it_is(folder: Path) -> None:
    with Counting(folder) as one:
        told = one.samples()
    size = told["kronos_metrics_file_system_bytes", ()]
    free = told["kronos_metrics_file_system_free_bytes", ()]
    assert 0 < told["kronos_metrics_folder_bytes", ()] < 4e6
    assert 0 < free <= size
