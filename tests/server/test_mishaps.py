"""Faults of a running service: removed metrics directory, signals from outside, hung processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kronos_api.checkpoints.hub import BUNDLED
from kronos_api.server.exit import NOT_STARTED
from tests.processes import OPENER, Service, services, start_service, until
from tests.server.callers import calling

pytestmark = pytest.mark.process

PATIENCE = 120.0
MANY: dict[str, Any] = {"RATE_LIMIT_PER_MINUTE": "10000000"}

HANGING = """
import sys, time
import kronos_api.app
from kronos_api.cli import main

create = kronos_api.app.create_app

def with_a_route_that_blocks(*args, **options):
    app = create(*args, **options)
    async def hang():
        time.sleep(3600)
    app.add_api_route("/hang", hang)
    return app

kronos_api.app.create_app = with_a_route_that_blocks
sys.argv = ["kronos-api", "serve", "--plain"]
main()
"""


def metric(service: Service, name: str) -> float:
    """The sum of all samples of that name."""
    with OPENER.open(service.url + "/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return sum(one.value for family in families for one in family.samples if one.name == name)


def titled(service: Service, title: str) -> set[int]:
    """Processes of the service that `pgrep -f title` finds."""
    processes = [psutil.Process(service.process.pid)]
    processes += processes[0].children(recursive=True)
    return {one.pid for one in processes if title in " ".join(one.cmdline())}


def remove(directory: Path) -> None:
    """Remove `directory` at once; processes would restore files while it is being emptied."""
    directory.rename(directory.with_name("lost"))
    shutil.rmtree(directory.with_name("lost"))


def test_removed_metrics_directory_is_restored(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    with services(tmp_path, workers=2, METRICS_DIR=str(directory), **MANY) as (service,):
        for _ in range(50):
            service.get("/v1/models")
        until(lambda: metric(service, "kronos_requests_total") >= 50)
        before = metric(service, "kronos_requests_total")
        remove(directory)
        assert metric(service, "kronos_requests_total") >= 0  # and no 500
        until(lambda: metric(service, "kronos_workers") == 2)
        assert metric(service, "kronos_requests_total") >= before
        assert len(service.wait_for("metrics_directory_restored", 3)) == 3  # master and workers
        remove(directory)
        for deaths, victim in enumerate(sorted(service.workers()), 1):
            os.kill(victim, signal.SIGKILL)
            service.wait_for("listening", 2 + deaths)
        until(lambda: metric(service, "kronos_worker_deaths_total") == 2)
        assert len(service.lines("worker_died")) == 2
        until(lambda: metric(service, "kronos_workers") == 2)
    assert service.process.returncode == 0
    assert list(directory.iterdir()) == []


def test_sigterm_to_all_workers_replaces_them_and_no_request_is_lost(tmp_path: Path) -> None:
    """As `pkill -f "gunicorn: worker"` in the container does."""
    with services(tmp_path, workers=2, **MANY) as (service,):
        assert titled(service, "gunicorn: master") == {service.process.pid}
        before = titled(service, "gunicorn: worker")
        assert before == service.workers()
        with calling(service.port, 4) as callers:
            for pid in before:
                os.kill(pid, signal.SIGTERM)
            service.wait_for("worker_stopped", 2)
            asked = callers.total
            until(lambda: callers.total > asked + 50)
        assert callers.failures == []
        until(lambda: len(titled(service, "gunicorn: worker")) == 2)
        assert not before & service.workers()
        assert metric(service, "kronos_worker_deaths_total") == 0
        assert service.lines("worker_died") == []
    assert service.process.returncode == 0


def test_hanging_worker_is_replaced(tmp_path: Path) -> None:
    with services(tmp_path, workers=2, **MANY) as (service,):
        hanging = min(service.workers())
        os.kill(hanging, signal.SIGSTOP)
        (line,) = service.wait_for("worker_timeout")
        assert (line["worker_pid"], line["setting"]) == (hanging, "GUNICORN_TIMEOUT")
        service.wait_for("listening", 3)
        assert hanging not in service.workers()
        until(lambda: metric(service, "kronos_worker_deaths_total") == 1)
    assert service.process.returncode == 0


def test_paused_service_goes_on_with_the_same_workers(tmp_path: Path) -> None:
    with services(tmp_path, workers=2, GUNICORN_TIMEOUT="5", **MANY) as (service,):
        processes = [service.process.pid, *service.workers()]
        before = service.workers()
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(8)  # longer than the timeout: the pause is the subject of the test
        for pid in processes:  # the master first
            os.kill(pid, signal.SIGCONT)
        with calling(service.port, 2) as callers:
            until(lambda: callers.total > 50)
        assert callers.failures == []
        assert service.workers() == before
        assert service.lines("worker_timeout") == []


def test_a_master_without_a_serving_worker_ends_with_a_status(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(BUNDLED, checkpoint)
    service = start_service(tmp_path, 2, MODEL_PATH=str(checkpoint), STARTUP_TIMEOUT="20")
    try:
        service.wait_for("model_ready", 2)  # the second one starts when the first one serves
        checkpoint.rename(tmp_path / "away")
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        assert service.process.wait(PATIENCE) == NOT_STARTED
    finally:
        service.kill()
    (line,) = service.lines("Reason: no worker has served for KRONOS_STARTUP_TIMEOUT (20 s)")
    assert line["level"] == "error"


def test_a_plain_process_whose_loop_hangs_ends_with_a_status(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING]
    service = start_service(tmp_path, command=command, GUNICORN_TIMEOUT="3")
    try:
        service.wait_for("model_ready")
        until(lambda: bool(service.lines("listening")))
        with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as caller:
            caller.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionError):
                assert caller.recv(1) == b""
        assert service.process.wait(PATIENCE) == NOT_STARTED
    finally:
        service.kill()
    (line,) = service.lines("event_loop_stalled")
    assert line["setting"] == "GUNICORN_TIMEOUT"
