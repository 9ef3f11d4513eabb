"""Several workers under their master: one is replaced, and no request is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kronos_api.checkpoints.hub import BUNDLED
from kronos_api.server.exit import NOT_STARTED
from tests.processes import Service, free_port, services, start_service
from tests.server.callers import calling

pytestmark = pytest.mark.process

MANY: dict[str, Any] = {
    "RATE_LIMIT_PER_MINUTE": "10000000",
    # So that a caller on a busy machine misses no deadline.
    "GUNICORN_KEEPALIVE": "60",
    "HEADER_TIMEOUT": "60",
    "BODY_TIMEOUT": "60",
}
GUNICORN = (
    *(sys.executable, "-m", "gunicorn", "-c", "python:kronos_api.gunicorn_conf"),
    "kronos_api.main:app",
)
CALLERS = 8


def until(holds: Callable[[], bool], service: Service, seconds: float = 120) -> None:
    """Wait until `holds()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert service.process.poll() is None, service.log.read_text("utf-8")
        assert time.monotonic() < deadline, service.log.read_text("utf-8")
        time.sleep(0.05)


def check_log(service: Service) -> None:
    """No traceback was logged, and every line is JSON."""
    text = service.log.read_text("utf-8")
    assert "Traceback" not in text
    assert all(line.startswith("{") for line in text.splitlines())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"MODEL_PATH": "/nowhere"}, id="not there"),
        pytest.param({"DEVICE": "cuda:77"}, id="does not load"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_failed_start_ends_at_once_with_status_3(
    tmp_path: Path, settings: dict[str, Any], plain: bool
) -> None:
    command = [sys.executable, "-m", "kronos_api", "serve", *["--plain"] * plain]
    service = start_service(tmp_path, 3, command, **settings)
    try:
        assert service.process.wait(120) == NOT_STARTED
    finally:
        service.kill()
    logged = [
        line
        for line in service.log.read_text("utf-8").splitlines()
        if '"error"' in line and ("/nowhere" in line or "cuda:77" in line)
    ]
    assert len(logged) == 1
    assert len(service.lines("Waiting for application startup.")) == 1  # and no second attempt
    check_log(service)


CHECK_HANGS = """
import sys, time
from kronos_api.checkpoints import hub
inner = hub.locate
def locate(source, *more, **options):
    if source is not None:
        time.sleep(1000)  # an unresponsive file system
    return inner(source, *more, **options)
hub.locate = locate
from kronos_api.cli import main
main()
"""
LOAD_HANGS = """
import torch
from kronos_api.engine import build
def build_engine(*sources, **options):
    while True:  # within PyTorch, which aborts a process that is finalised meanwhile
        torch.ones(500, 500) @ torch.ones(500, 500)
build.build_engine = build_engine
from kronos_api.cli import main
main()
"""


@pytest.mark.parametrize(
    ("script", "plain"),
    [
        pytest.param(CHECK_HANGS, False, id="check"),
        pytest.param(LOAD_HANGS, False, id="load"),
        pytest.param(LOAD_HANGS, True, id="load, one process"),
    ],
)
def test_hanging_start_ends_at_the_startup_timeout(
    tmp_path: Path, script: str, plain: bool
) -> None:
    command = [sys.executable, "-c", script, "serve", *["--plain"] * plain]
    hangs = {"MODEL_PATH": str(BUNDLED), "STARTUP_TIMEOUT": "3"}
    service = start_service(tmp_path, 1, command, **hangs)
    try:
        assert service.process.wait(120) == NOT_STARTED
    finally:
        service.kill()
    logged = [
        line for line in service.log.read_text("utf-8").splitlines() if "STARTUP_TIME" in line
    ]
    assert len(logged) == 1
    check_log(service)


@pytest.mark.parametrize("plain", [False, True])
def test_hanging_start_ends_on_sigterm(tmp_path: Path, plain: bool) -> None:
    command = [sys.executable, "-c", CHECK_HANGS, "serve", *["--plain"] * plain]
    service = start_service(tmp_path, 1, command, MODEL_PATH=str(BUNDLED))
    try:
        service.wait_for("Waiting for application startup.")
        service.process.terminate()
        assert service.process.wait(60) == 0
    finally:
        service.kill()
    assert service.lines("stopped_before_ready")
    check_log(service)


def test_of_two_starts_on_one_port_one_serves_and_the_other_ends(tmp_path: Path) -> None:
    port = str(free_port())
    pair = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pair.append(start_service(tmp_path / name, 1, PORT=port))
    try:
        deadline = time.monotonic() + 120
        while all(service.process.poll() is None for service in pair):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (loser,) = (service for service in pair if service.process.poll() is not None)
        (winner,) = (service for service in pair if service is not loser)
        # 1 if the winner listened already, so that the port could not be bound.
        assert loser.process.returncode in (1, NOT_STARTED)
        text = loser.log.read_text("utf-8")
        assert text.count(f"cannot listen on 127.0.0.1 port {port}: address already in use") == 1
        assert "Traceback" not in text
        winner.wait_for("model_ready")
        winner.process.terminate()
        assert winner.process.wait(120) == 0
    finally:
        for service in pair:
            service.kill()


def test_workers_are_replaced_and_no_request_is_lost(tmp_path: Path) -> None:
    recycle = {"GUNICORN_MAX_REQUESTS": "50", "GUNICORN_MAX_REQUESTS_JITTER": "20"}
    with (
        services(tmp_path, workers=2, **MANY | recycle) as (service,),
        calling(service.port, CALLERS) as callers,
    ):
        until(
            lambda: callers.total >= 2000 and len(service.lines("stopped")) >= 6,
            service,
            seconds=400,
        )
    assert callers.failures == []
    assert set(callers.answers) == {200}
    assert service.process.returncode == 0
    replaced = [line for line in service.lines("draining") if line["reason"] == "retired"]
    assert len(replaced) >= 6
    assert callers.last_answers > 0
    # One at a time, and only when the other had loaded the model.
    assert len(service.lines("model_ready")) >= 2 + len(replaced)
    check_log(service)


def test_on_sighup_all_workers_are_replaced_and_no_request_is_lost(tmp_path: Path) -> None:
    with services(tmp_path, workers=2, **MANY) as (service,):
        before = service.workers()
        with calling(service.port, CALLERS) as callers:
            service.process.send_signal(signal.SIGHUP)
            most = set()

            def replaced() -> bool:
                most.add(len(service.workers()))
                return len(service.lines("worker_stopped")) == 2

            until(replaced, service)
        assert max(most) <= 3
        assert callers.failures == []
        assert set(callers.answers) == {200}
        until(lambda: len(service.workers()) == 2, service)
        assert not before & service.workers()
    assert service.process.returncode == 0
    check_log(service)


def test_killed_worker_loses_only_its_own_requests(tmp_path: Path) -> None:
    with (
        services(tmp_path, workers=2, **MANY) as (service,),
        calling(service.port, CALLERS) as callers,
    ):
        for kills in (1, 2, 3):
            os.kill(min(service.workers()), signal.SIGKILL)
            service.wait_for("worker_died", kills)
            service.wait_for("model_ready", 2 + kills)
            service.wait_for("listening", 2 + kills)
        asked = callers.total
        until(lambda: callers.total > asked + 100, service)
    # A caller has one request at a time, which may have been inside the worker.
    assert len(callers.failures) <= 3 * CALLERS
    assert not any("Refused" in failure for failure in callers.failures)
    assert set(callers.answers) == {200}
    assert service.process.returncode == 0
    check_log(service)


def test_workers_do_not_outlive_their_master(tmp_path: Path) -> None:
    with services(tmp_path, workers=2) as (service,):
        workers = [psutil.Process(pid) for pid in service.workers()]
        service.kill()
        gone, alive = psutil.wait_procs(workers, timeout=60)
        assert (len(gone), alive) == (2, [])
    assert len(service.lines("master_lost")) == 2
    assert len(service.lines("stopped")) == 2


def test_a_replacement_that_cannot_start_leaves_the_others_alone(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(BUNDLED, checkpoint)
    settings = MANY | {"MODEL_PATH": str(checkpoint)}
    with services(tmp_path, workers=2, **settings) as (service,):
        checkpoint.rename(tmp_path / "away")
        os.kill(min(service.workers()), signal.SIGKILL)
        pauses = [line["next_try_seconds"] for line in service.wait_for("worker_start_failed", 2)]
        assert pauses[1] > pauses[0]
        with calling(service.port, 2) as callers:
            until(lambda: callers.total > 50, service)
        assert callers.failures == []
        (tmp_path / "away").rename(checkpoint)
        service.wait_for("model_ready", 3)
    assert service.process.returncode == 0


def test_gunicorns_own_command_serves(tmp_path: Path) -> None:
    """Its own master does not wait for a replacement, but nothing is cut."""
    recycle = {"GUNICORN_MAX_REQUESTS": "300", "GUNICORN_MAX_REQUESTS_JITTER": "100"}
    with services(tmp_path, workers=2, command=GUNICORN, **MANY | recycle) as (service,):
        with calling(service.port, 4) as callers:
            until(lambda: len(service.lines("stopped")) >= 1, service)
        assert callers.failures == []
    assert service.process.returncode == 0
    assert service.lines("draining")[0]["reason"] == "max_requests"
    check_log(service)


def test_gunicorns_own_command_ends_if_the_service_cannot_start(tmp_path: Path) -> None:
    service = start_service(tmp_path, 1, GUNICORN, RATE_LIMITS="stram=1/day")
    try:
        assert service.process.wait(120) == NOT_STARTED
    finally:
        service.kill()
    assert "there is no route 'stram'" in service.log.read_text("utf-8")
    check_log(service)


def test_a_change_of_the_source_is_served(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED.parents[1], tmp_path / "kronos_api")
    source = tmp_path / "kronos_api" / "__init__.py"
    command = [
        "env",
        f"--chdir={tmp_path}",
        sys.executable,
        "-m",
        "kronos_api",
        "serve",
        "--reload",
    ]
    with services(tmp_path, command=command) as (service,):
        assert service.get("/v1/models")
        source.write_text(
            source.read_text("utf-8") + '\nprint(\'{"event": "changed"}\')\n', "utf-8"
        )
        service.wait_for("changed")
        service.wait_for("model_ready", 2)
        assert service.get("/v1/readyz")["status"] == "ok"
    assert service.process.returncode == 0


def test_gunicorns_arguments_are_not_silently_ignored(tmp_path: Path) -> None:
    with services(tmp_path, GUNICORN_CMD_ARGS="--workers 7") as (service,):
        assert len(service.workers()) == 1
    (logged,) = [
        line for line in service.log.read_text("utf-8").splitlines() if "GUNICORN_CMD_ARGS" in line
    ]
    assert '"level": "warning"' in logged


def test_help_names_the_ways_to_serve() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "kronos_api", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    ).stdout
    assert "--plain" in shown
    assert "--reload" in shown
