"""`kronos-api serve`: what it refuses, and one real service from start to stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kronos_api.cli.serve import bind
from kronos_api.errors import StartupError
from kronos_api.server.exit import NOT_STARTED
from tests.cli.conftest import Command
from tests.processes import free_port, services, start_service

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another socket listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    return free_port()


def environment(port: int, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KRONOS_")}
    return kept | {"KRONOS_HOST": "127.0.0.1", "KRONOS_PORT": str(port)} | settings


def test_bound_socket_does_not_listen() -> None:
    with (
        bind("127.0.0.1", 0) as listener,
        socket.socket() as caller,
        pytest.raises(ConnectionRefusedError),
    ):
        caller.connect(listener.getsockname())


def test_binds_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with bind("::1", 0) as listener:
        assert listener.family == socket.AF_INET6


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_strange_address_is_one_line(host: str) -> None:
    with pytest.raises(StartupError, match=rf"^cannot listen on {host} port 8000: [^\n]+$"):
        bind(host, 8000)


def test_taken_port_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setenv("KRONOS_HOST", "127.0.0.1")
    monkeypatch.setenv("KRONOS_PORT", str(taken))
    result = command("serve")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"kronos-api: cannot listen on 127.0.0.1 port {taken}: ")
    assert result.stderr.count("\n") == 1


def test_bad_setting_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_PORT", "http")
    result = command("serve")
    assert result.exit_code == 1
    assert result.stderr.startswith("kronos-api: KRONOS_PORT: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.process
def test_bad_checkpoint_ends_before_the_port_opens(free: int, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "kronos_api", "serve"],
        env=environment(free, KRONOS_MODEL_PATH=str(tmp_path / "nowhere")),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == NOT_STARTED
    events = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert any("nowhere" in event and "does not exist" in event for event in events)
    assert not any("running on" in event for event in events)
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.process
def test_service_from_start_to_stop(free: int, tmp_path: Path) -> None:
    """The first forecast as `scripts/serve` shows it, then an orderly end."""
    variables, log = environment(free), tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "kronos_api", "serve"],
            env=variables,
            cwd=tmp_path,
            stdout=output,
        ) as server,
    ):
        try:
            shown = first_forecast(server.pid, variables)
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=120)
        except subprocess.TimeoutExpired:
            pytest.fail(log.read_text())
        finally:
            server.kill()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Ready: http://127.0.0.1:{free} " in shown.stdout
    assert "2026-03-06T04:00:00Z" in shown.stdout
    assert "not for trading" in shown.stdout
    assert server.returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["event"] == "request" and line["status"] == 200 for line in lines)


@pytest.mark.process
def test_several_workers_serve_and_stop(tmp_path: Path) -> None:
    with services(tmp_path, workers=2) as (service,):
        assert len(service.workers()) == 2
        assert service.get("/v1/readyz")["model_loaded"]
        (dying, _) = sorted(service.workers())
        os.kill(dying, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while len(service.lines("model_ready")) < 3:  # one that dies is replaced
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert dying not in service.workers()
    assert service.process.returncode == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.process
@pytest.mark.parametrize(
    ("settings", "status", "told"),
    [
        ({"MODEL_PATH": "/nowhere"}, NOT_STARTED, "model folder /nowhere/model does not exist"),
        (
            {"RATE_LIMITS": "stram=1/day"},
            1,
            "KRONOS_RATE_LIMITS: there is no route 'stram'",
        ),
        ({"REDIS_URL": "s3cret"}, 1, "kronos-api: KRONOS_REDIS_URL: must have the form"),
        ({"RATE_LIMIT_DIR": "/nowhere"}, NOT_STARTED, "set KRONOS_RATE_LIMIT_DIR to a folder"),
    ],
)
def test_what_stops_one_worker_stops_them_all(
    tmp_path: Path, settings: dict[str, str], status: int, told: str
) -> None:
    service = start_service(tmp_path, 2, **settings)
    try:
        assert service.process.wait(120) == status
    finally:
        service.kill()
    log = service.log.read_text()
    assert told in log
    assert "Traceback" not in log
    assert "s3cret" not in log


def first_forecast(pid: int, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "first_forecast.py"), str(pid)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)


def test_first_forecast_leaves_others_alone(taken: int) -> None:
    """Whoever has the port already is not the service that was just started."""
    shown = first_forecast(os.getpid(), environment(taken))
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")


def test_first_forecast_ends_with_the_service(free: int) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    shown = first_forecast(gone.pid, environment(free))
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")
