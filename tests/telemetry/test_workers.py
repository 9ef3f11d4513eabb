"""`/metrics` of a service with two workers: either reports both, and deaths lose no count."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import OPENER, Service, services, start_service, until
from tests.telemetry.counting import Sample
from tests.web import BATCH, body

MODELS: Sample = ("kronos_requests_total", (("route", "/v1/models"), ("status", "200")))
PATIENCE = 60.0

pytestmark = pytest.mark.process


def scrape(service: Service) -> dict[Sample, float]:
    with OPENER.open(service.url + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(service: Service) -> dict[Sample, float]:
    """The samples that must never decrease: counters and histograms."""
    with OPENER.open(service.url + "/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }


def sample(service: Service, name: str) -> float:
    return scrape(service).get((name, ()), 0.0)


def until_sample(service: Service, name: str, value: float) -> None:
    until(lambda: sample(service, name) == value)


def ask(service: Service, times: int) -> int:
    """The number of answered requests of `times`, each on a connection of its own."""
    answered = 0
    for _ in range(times):
        with suppress(OSError, HTTPException):  # the one that was asked was killed
            service.get("/v1/models")
            answered += 1
    return answered


def test_counters_add_up_and_outlive_kills(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    with services(tmp_path, workers=2, METRICS_DIR=str(directory)) as (service,):
        assert ask(service, 200) == 200
        # A request is counted when it has been answered: a moment later.
        until(lambda: scrape(service).get(MODELS) == 200)
        answered = 200
        for deaths in (1, 2, 3):
            # One that still loads could not start, when it is killed; it has not died.
            service.wait_for("listening", 1 + deaths)
            before = counted(service)
            assert len(before) > 30
            workers = sorted(service.workers())
            assert len(workers) == 2
            victim = psutil.Process(workers[deaths % 2])
            victim.kill()
            answered += ask(service, 20)
            victim.wait(PATIENCE)
            after = counted(service)
            lower = {one: (value, after.get(one)) for one, value in before.items()}
            assert all(after.get(one, -1) >= value for one, value in before.items()), lower
            until_sample(service, "kronos_worker_deaths_total", deaths)
            until_sample(service, "kronos_workers", 2)
        # Every answered request is counted; requests lost with a worker may or may not be.
        until(lambda: answered <= scrape(service)[MODELS] <= 260)
        # Of the master, of two workers, and of one that started before another had ended.
        assert 2 <= len(list(directory.rglob("counter_*.db"))) <= 4
    assert list(directory.iterdir()) == []


def test_every_worker_reports_the_load_of_all(tmp_path: Path) -> None:
    settings = {"MAX_DECODE_STEPS": "10000000", "INFERENCE_TIMEOUT": "500"}
    settings |= {"REQUEST_TIMEOUT": "550", "SHUTDOWN_TIMEOUT": "600"}
    # A candle a second: the forecast lasts until its caller disconnects.
    command = (sys.executable, "-m", "tests.paced_service", "1", "serve")
    with services(tmp_path, 1, 2, command=command, **settings) as (service,):
        item = body(60, horizon=512, overrides={"sample_count": 64})
        content = json.dumps({"items": [item | {"series_id": f"{n}"} for n in range(16)]}).encode()
        headers = f"POST {BATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        headers += f"Content-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port), 10) as caller:
            caller.sendall(headers.encode() + content)
            until(lambda: sample(service, "kronos_active_series") > 0)
            # Connections go to either worker; only one of them has something to do.
            for _ in range(30):
                now = scrape(service)
                assert now["kronos_active_series", ()] > 0
                assert now["kronos_kv_cache_bytes", ()] > 0
                assert now["kronos_concurrent_requests", ()] >= 2  # the forecasts, and this
        until(lambda: sample(service, "kronos_active_series") == 0)


def test_unwritable_metrics_directory_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    service = start_service(tmp_path, 2, METRICS_DIR=str(tmp_path / "file"))
    assert service.process.wait(60) == 1
    *_, line = service.log.read_text("utf-8").splitlines()
    assert "cannot write metrics" in line
    assert "KRONOS_METRICS_DIR" in line
