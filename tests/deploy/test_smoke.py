"""The smoke test itself: it passes a service that is well, and fails others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer

import pytest

from tests.processes import free_port, services

SMOKE = Path(__file__).resolve().parents[1] / "smoke" / "test_smoke.sh"


def smoke(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-s", "--", *arguments],
        input=SMOKE.read_text("utf-8"),
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def without_curl(tmp_path: Path) -> str:
    """A PATH with Python but without curl."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "grep", "wc", "sleep"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    (folder / "python3").symlink_to(sys.executable)
    return str(folder)


@pytest.mark.process
def test_healthy_service_passes(tmp_path: Path, without_curl: str) -> None:
    with services(tmp_path) as (service,):
        for variables in ({}, {"PATH": without_curl}):
            outcome = smoke(service.url, **variables)
            assert outcome.returncode == 0, outcome.stdout + outcome.stderr
            assert "6 of 6 passed" in outcome.stdout
        outcome = smoke("--gateway", service.url)
        assert outcome.returncode == 1
        assert "FAIL  metrics kept inside" in outcome.stdout


def test_absent_service_fails_every_check(without_curl: str) -> None:
    for variables in ({}, {"PATH": without_curl}):
        outcome = smoke(f"http://127.0.0.1:{free_port()}", **variables)
        assert outcome.returncode == 6, outcome.stdout + outcome.stderr
        assert "0 of 6 passed" in outcome.stdout


def test_api_key_names_the_caller(without_curl: str) -> None:
    seen: list[str | None] = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_error(401)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with TCPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for variables in ({}, {"PATH": without_curl}):
            assert smoke(url, KRONOS_API_KEY="kronos_a-B_1", **variables).returncode == 6
        server.shutdown()
        thread.join()
    assert len(seen) == 12
    assert set(seen) == {"Bearer kronos_a-B_1"}


def test_unknown_arguments() -> None:
    outcome = smoke("--fast")
    assert outcome.returncode == 64
    assert "does not know '--fast'" in outcome.stderr
