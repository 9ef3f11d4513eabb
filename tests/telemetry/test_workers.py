"""`/metrics` of a service with two workers: either reports both, and deaths lose no count."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import OPENER, Service, services, start_service, until
from tests.telemetry.counting import Sample
from tests.web import BATCH, JSON, SINGLE, body

CALLERS = "kronos_caller_requests_total"
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


class Clients:
    """Eight clients, each with a connection of its own, that send `requests` in all."""

    def __init__(self, port: int, requests: int) -> None:
        self._port = port
        self._left = iter(range(requests))
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str]] = Counter()
        self._lost = 0
        self._content = json.dumps(body(8, horizon=4))
        self._threads = [threading.Thread(target=self._send) for _ in range(8)]
        for thread in self._threads:
            thread.start()

    def has(self, answers: int) -> bool:
        """Whether so many requests got a whole response."""
        return sum(self._answers.values()) >= answers

    def join(self) -> tuple[Counter[tuple[str, str]], int]:
        """The responses by route and status, and the number of requests that got none."""
        for thread in self._threads:
            thread.join(300)
        return self._answers, self._lost

    def _send(self) -> None:
        link = HTTPConnection("127.0.0.1", self._port, timeout=60)
        while True:
            with self._lock:
                if (number := next(self._left, None)) is None:
                    break
            route = SINGLE if number % 4 else "/v1/models"
            try:
                if route == SINGLE:
                    link.request("POST", route, self._content, JSON)
                else:
                    link.request("GET", route)
                answer = link.getresponse()
                answer.read()
            except (OSError, HTTPException):
                link.close()
                with self._lock:
                    self._lost += 1
                continue
            with self._lock:
                self._answers[route, str(answer.status)] += 1
        link.close()


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
                assert now["kronos_concurrent_requests", ()] == 1  # the scrape does not count
        until(lambda: sample(service, "kronos_active_series") == 0)


def test_unwritable_metrics_directory_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    service = start_service(tmp_path, 2, METRICS_DIR=str(tmp_path / "file"))
    assert service.process.wait(60) == 1
    *_, line = service.log.read_text("utf-8").splitlines()
    assert "cannot write metrics" in line
    assert "KRONOS_METRICS_DIR" in line


def test_counters_agree_with_the_answers_of_clients_while_workers_are_killed(
    tmp_path: Path,
) -> None:
    requests = int(os.environ.get("KRONOS_TEST_REQUESTS", "2000"))  # 10,000 before a release
    command = (sys.executable, "-m", "tests.paced_service", "0.0001", "serve")
    options = {"RATE_LIMIT_ENABLED": "false", "MAX_QUEUE": "1000"}
    with services(tmp_path, 1, 4, command=command, **options) as (service,):
        clients = Clients(service.port, requests)
        for share in (4, 2):
            until(partial(clients.has, requests // share))
            psutil.Process(min(service.workers())).kill()
        answers, lost = clients.join()
        counts = scrape(service)
        assert sum(answers.values()) + lost == requests
        assert 0 < lost <= requests // 10  # workers were killed with requests in progress
        excess = 0.0
        for (route, status), answered in answers.items():
            labels = (("route", route), ("status", status))
            excess += counts["kronos_requests_total", labels] - answered
            assert counts["kronos_requests_total", labels] >= answered
        assert excess <= lost
        by_caller = sum(value for (name, _), value in counts.items() if name == CALLERS)
        # Readiness and the like are not asked: every request counts for its caller.
        assert sum(answers.values()) <= by_caller <= requests
