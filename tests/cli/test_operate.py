"""`kronos-api drain`, `log-level` and `block`, on a service with two workers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

import pytest
from typer.testing import CliRunner

from kronos_api.cli import app
from tests.processes import OPENER, Service, free_port, services, until, without_settings
from tests.web import JSON, SINGLE, body

STEP = 0.02
"""Seconds of one candle."""


def order(service: Service, folder: Path, *command: str) -> str:
    """The output of a command that must succeed, run where the service runs."""
    done = subprocess.run(
        [sys.executable, "-m", "kronos_api", *command],
        env=without_settings()
        | {"KRONOS_PORT": str(service.port), "KRONOS_CONTROL_DIR": str(folder / "control")},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def status(service: Service, path: str, content: dict[str, Any] | None = None) -> tuple[int, str]:
    """Status and error code of a response."""
    sent = None if content is None else json.dumps(content).encode()
    try:
        OPENER.open(Request(service.url + path, sent, JSON), timeout=60).close()
    except HTTPError as error:
        answer = json.load(error)
        return error.code, answer.get("error", {}).get("code", "")
    return 200, ""


def is_always(service: Service, path: str, expected: int) -> bool:
    """Whether many new connections, which go to either worker, get that status."""
    return all(status(service, path)[0] == expected for _ in range(8))


@pytest.mark.process
def test_orders_reach_all_processes_and_are_withdrawn(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.paced_service", str(STEP), "serve")
    options = {"CONTROL_DIR": str(tmp_path / "control"), "RATE_LIMIT_ENABLED": "false"}
    with services(tmp_path, 1, 2, command=command, **options) as (service,):
        # Drain: a forecast that was accepted goes on, and the command waits for it.
        outcomes: list[tuple[int, str]] = []
        long = body(60, horizon=200)
        caller = threading.Thread(target=lambda: outcomes.append(status(service, SINGLE, long)))
        caller.start()
        until(lambda: "kronos_active_series 1.0" in metrics_of(service))
        assert order(service, tmp_path, "drain").startswith("Drained")
        caller.join(60)
        assert outcomes == [(200, "")]
        assert is_always(service, "/v1/readyz", 503)
        assert status(service, SINGLE, body()) == (503, "SHUTTING_DOWN")
        assert is_always(service, "/v1/healthz", 200)
        order(service, tmp_path, "drain", "--undo")
        until(lambda: is_always(service, "/v1/readyz", 200))
        assert status(service, SINGLE, body()) == (200, "")

        # Log level, of both workers.
        order(service, tmp_path, "log-level", "DEBUG")
        assert order(service, tmp_path, "log-level") == "DEBUG\n"

        def debugging() -> set[int]:
            is_always(service, "/v1/healthz", 200)
            return {line["pid"] for line in service.lines("request") if line["level"] == "debug"}

        until(lambda: debugging() == service.workers())
        order(service, tmp_path, "log-level", "--undo")
        until(lambda: service.lines("operator_orders")[-1]["log_level"] is None)

        # Block, and a worker that starts later obeys too.
        order(service, tmp_path, "block", "localhost")
        assert order(service, tmp_path, "block") == "localhost\n"
        until(lambda: is_always(service, "/v1/models", 403))
        assert status(service, "/v1/models") == (403, "CALLER_BLOCKED")
        order(service, tmp_path, "block", "--undo", "localhost")
        until(lambda: is_always(service, "/v1/models", 200))
        order(service, tmp_path, "block", "localhost")
    with services(tmp_path, 1, 1, command=command, **options) as (again,):
        until(lambda: is_always(again, "/v1/models", 200))  # another port; its own orders


def metrics_of(service: Service) -> str:
    with OPENER.open(service.url + "/metrics", timeout=30) as answer:
        return str(answer.read(), "utf-8")


@pytest.mark.parametrize(
    "reply",
    [b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut off"],
    ids=["closed", "no HTTP", "cut off"],
)
def test_drain_names_metrics_that_cannot_be_read_in_one_line(
    reply: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            listener.accept()[0].close()  # the command looks whether a service listens
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("KRONOS_PORT", str(listener.getsockname()[1]))
        monkeypatch.setenv("KRONOS_CONTROL_DIR", str(tmp_path))
        done = CliRunner().invoke(app, ["drain"])
        thread.join()
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "/metrics cannot be read: " in line


@pytest.mark.parametrize("command", [["drain"], ["log-level", "DEBUG"], ["block", "shop"]])
def test_command_without_a_service_is_refused_in_one_line(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = str(free_port())
    monkeypatch.setenv("KRONOS_PORT", port)
    monkeypatch.setenv("KRONOS_CONTROL_DIR", str(tmp_path))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert f"no service listens at port {port}" in done.stderr
    assert list(tmp_path.iterdir()) == []
