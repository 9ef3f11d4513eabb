"""Draining: every request that was or is being sent is answered."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Service, services
from tests.web import JSON, SINGLE, body, encode

pytestmark = pytest.mark.process

SERVE = (sys.executable, "-m", "tests.paced_service", "0.01", "serve")
WAYS = {"gunicorn": SERVE, "plain": (*SERVE, "--plain")}
LONG = encode(body(4, horizon=512))
"""A forecast of five seconds: it is in progress when the service is stopped."""
PATIENT: dict[str, Any] = {
    "INFERENCE_TIMEOUT": "300",
    "REQUEST_TIMEOUT": "310",
    "SHUTDOWN_TIMEOUT": "320",
    "GUNICORN_KEEPALIVE": "60",
    "RATE_LIMIT_ENABLED": "false",
}
STEPS = ["draining", "listener_closed", "connections_drained", "model_unloaded", "stopped"]


@pytest.fixture(params=WAYS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    with services(tmp_path, command=WAYS[request.param], **PATIENT) as (running,):
        yield running


@contextmanager
def connected(service: Service) -> Iterator[HTTPConnection]:
    """A connection that is kept open."""
    connection = HTTPConnection("127.0.0.1", service.port, timeout=120)
    assert ask(connection, "/v1/healthz").getheader("connection") is None
    yield connection
    connection.close()


def ask(connection: HTTPConnection, path: str, content: bytes | None = None) -> HTTPResponse:
    """The answer, whole."""
    connection.request("GET" if content is None else "POST", path, content, JSON)
    answer = connection.getresponse()
    answer.content = answer.read()  # type: ignore[attr-defined]
    return answer


def refuses(service: Service) -> bool:
    """Whether the port refuses connections."""
    try:
        socket.create_connection(("127.0.0.1", service.port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_busy(service: Service, answers: Sequence[HTTPResponse] = ()) -> None:
    """Wait until a forecast is in progress, or has already been answered."""
    deadline = time.monotonic() + 60
    while not answers and not service.get("/v1/healthz/detailed")["checks"]["queue"]["active"]:
        assert time.monotonic() < deadline, service.log.read_text("utf-8")
        time.sleep(0.02)


def stop_while_busy(service: Service, answers: list[HTTPResponse]) -> threading.Thread:
    """Request a long forecast and stop the service meanwhile; returns the thread that waits."""
    caller = threading.Thread(
        target=lambda: answers.append(
            ask(HTTPConnection("127.0.0.1", service.port, timeout=310), SINGLE, LONG)
        )
    )
    caller.start()
    wait_until_busy(service, answers)
    service.process.send_signal(signal.SIGTERM)
    return caller


def test_requests_in_flight_are_answered_and_each_step_is_logged(service: Service) -> None:
    answers: list[HTTPResponse] = []
    with connected(service) as probe, connected(service) as another:
        caller = stop_while_busy(service, answers)
        service.wait_for("draining")
        ready = ask(probe, "/v1/readyz")
        assert ready.status == 503
        assert json.loads(ready.content)["status"] == "draining"  # type: ignore[attr-defined]
        assert ready.getheader("connection") == "close"
        service.wait_for("listener_closed")
        assert refuses(service)
        # A connection that only waited may bring one more request, even for a forecast.
        last = ask(another, SINGLE, encode(body(4, horizon=1)))
        assert (last.status, last.getheader("connection")) == (200, "close")
        assert caller.is_alive() or answers
        service.process.send_signal(signal.SIGTERM)  # a second one changes nothing
    caller.join(320)
    assert service.process.wait(60) == 0
    (answer,) = answers
    assert (answer.status, answer.getheader("connection")) == (200, "close")
    logged = [line["event"] for step in STEPS for line in service.lines(step)]
    assert logged == STEPS
    times = [service.lines(step)[0]["timestamp"] for step in STEPS]
    assert times == sorted(times)
    assert service.lines("draining")[0]["reason"] == "SIGTERM"
    assert not any(service.lines("connections_aborted"))
    assert "Traceback" not in service.log.read_text("utf-8")


def test_idle_connection_is_closed_at_its_keep_alive_timeout(tmp_path: Path) -> None:
    """Not at once, because a request may be in flight, and not later than without the stop."""
    patient = PATIENT | {"GUNICORN_KEEPALIVE": "3"}
    with services(tmp_path, command=SERVE, **patient) as (service,), connected(service) as probe:
        service.process.terminate()
        service.wait_for("listener_closed")
        assert probe.sock is not None
        probe.sock.settimeout(60)
        assert probe.sock.recv(1) == b""  # closed, without a word
        assert service.process.wait(60) == 0
        (done,) = service.lines("connections_drained")
        assert done["seconds"] > 1


@pytest.mark.parametrize(("number", "cut"), [(signal.SIGINT, False), (signal.SIGQUIT, True)])
def test_other_signals(service: Service, number: signal.Signals, cut: bool) -> None:
    """Ctrl-C stops in order, SIGQUIT at once."""
    with ThreadPoolExecutor(1) as thread:
        answers: list[HTTPResponse] = []
        waiting = thread.submit(ask, HTTPConnection("127.0.0.1", service.port), SINGLE, LONG)
        wait_until_busy(service)
        service.process.send_signal(number)
        try:
            answers.append(waiting.result(310))
        except OSError:
            assert cut
    assert service.process.wait(60) == 0
    assert bool(service.lines("connections_aborted")) == cut
    if not cut:
        assert answers[0].status == 200
        assert service.lines("model_unloaded")
    assert "Traceback" not in service.log.read_text("utf-8")


def test_single_process_ends_after_its_limit_of_requests(tmp_path: Path) -> None:
    limits = {"LIMIT_MAX_REQUESTS": "20", "LIMIT_MAX_REQUESTS_JITTER": "10"}
    with services(tmp_path, command=WAYS["plain"], **PATIENT | limits) as (service,):
        answered = 0
        with pytest.raises(ConnectionError):
            while True:
                # What is accepted is answered.
                connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
                answered += ask(connection, "/v1/healthz").status == 200
                connection.close()
        assert service.process.wait(60) == 0
    assert answered >= 20
    assert service.lines("draining")[0]["reason"] == "max_requests"


def test_connections_open_after_the_shutdown_timeout_are_aborted(tmp_path: Path) -> None:
    short = {"INFERENCE_TIMEOUT": "0.5", "REQUEST_TIMEOUT": "0.8", "SHUTDOWN_TIMEOUT": "1"}
    with services(tmp_path, command=SERVE, **PATIENT | short) as (service,), connected(service):
        service.process.terminate()
        assert service.process.wait(60) == 0
    (cut,) = service.lines("connections_aborted")
    assert cut["connections"] == 1
    assert service.lines("model_unloaded")


def test_a_deadline_still_holds_while_the_service_stops(tmp_path: Path) -> None:
    hasty = PATIENT | {"INFERENCE_TIMEOUT": "3", "REQUEST_TIMEOUT": "4"}
    answers: list[HTTPResponse] = []
    with services(tmp_path, command=SERVE, **hasty) as (service,):
        stop_while_busy(service, answers).join(60)
        assert service.process.wait(60) == 0
    assert answers[0].status == 504
