"""The values of all workers, against prometheus_client's own collector and text."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from kronos_api.telemetry.text_format import text
from kronos_api.telemetry.worker_values import WorkerValues


class Worker:
    """Metrics in the files of one slot."""

    def __init__(self, slot: int) -> None:
        self._values = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        values.ValueClass = self._values
        registry = CollectorRegistry()
        self.requests = Counter("requests", "By \\ caller.\n", ["caller"], registry=registry)
        self.seconds = Histogram("seconds", "Time.", ["route"], buckets=(1, 2.5), registry=registry)
        self.depth = Gauge("depth", "Sum.", multiprocess_mode="livesum", registry=registry)
        self.files = Gauge("files", "Most.", multiprocess_mode="livemax", registry=registry)

    def count(self, caller: str, number: float) -> None:
        values.ValueClass = self._values  # of a new child
        self.requests.labels(caller).inc(number)

    def observe(self, route: str, seconds: float) -> None:
        values.ValueClass = self._values
        self.seconds.labels(route).observe(seconds)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    return tmp_path


def test_text_is_that_of_prometheus_client(directory: Path) -> None:
    shared = WorkerValues(directory)

    def same() -> bytes:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
        found = text(shared.collect())
        assert found == generate_latest(registry)
        return found

    first, second = Worker(1), Worker(2)
    for number, worker in enumerate((first, second), 1):
        worker.count('a "quoted"\n\\ name', number)
        worker.observe("/v1", number)
        worker.depth.set(-number)
        worker.files.set(-number)
    assert b'seconds_bucket{le="2.5",route="/v1"} 2.0' in same()
    first.count("new", 1e20)  # a file grows
    first.observe("/v2", float("inf"))
    first.observe("/v2", float("nan"))
    assert b'requests_total{caller="new"} 1e+20' in same()
    (directory / "gauge_livesum_2.db").unlink()  # a worker has ended
    assert b"\ndepth -1.0\n" in same()
    # Another file of the same name, and as many bytes, has other keys.
    file = directory / "counter_1.db"
    file.write_bytes(file.read_bytes().replace(b"new", b"old"))
    assert b'requests_total{caller="old"} 1e+20' in same()


def test_series_of_two_versions_with_other_help_texts_is_one(directory: Path) -> None:
    Worker(1).count("a", 1)
    Worker(2).count("a", 2)
    file = directory / "counter_2.db"
    file.write_bytes(file.read_bytes().replace(b"caller.", b"origin."))
    assert b'requests_total{caller="a"} 3.0\n' in text(WorkerValues(directory).collect())


def test_file_that_is_not_whole_is_an_error(directory: Path) -> None:
    Worker(1).count("a", 1)
    file = directory / "counter_1.db"
    whole = file.read_bytes()
    for content in (b"", bytes(len(whole))):  # created, or reserved, and not mapped yet
        file.write_bytes(content)
        assert b"requests" not in text(WorkerValues(directory).collect())
    for content in (whole[:16], whole[:8] + b"\xff\xff\xff\x7f" + whole[12:]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="a file of metrics"):
            list(WorkerValues(directory).collect())
