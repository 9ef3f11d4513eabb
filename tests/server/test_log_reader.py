"""A service whose log reader reads nothing serves, replaces a hung worker, and stops."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import psutil
import pytest

from tests.processes import OPENER, ROOT, free_port, until, without_settings

pytestmark = pytest.mark.process

PATIENCE = 120.0
SMALLEST_PIPE = 4096


@pytest.mark.parametrize("plain", [False, True])
def test_a_stalled_log_reader_stops_nothing(tmp_path: Path, plain: bool) -> None:
    port = free_port()
    settings = {
        "KRONOS_HOST": "127.0.0.1",
        "KRONOS_PORT": str(port),
        "KRONOS_TORCH_THREADS": "1",
        "KRONOS_RATE_LIMIT_DIR": str(tmp_path),
        "GUNICORN_WORKERS": "1",
        "GUNICORN_TIMEOUT": "5",
        "GUNICORN_KEEPALIVE": "1",
    }
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    service = subprocess.Popen(
        [sys.executable, "-m", "kronos_api", "serve", *["--plain"] * plain],
        env=without_settings() | settings,
        cwd=ROOT,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)

    def answers(path: str) -> bool:
        try:
            with OPENER.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    try:
        until(lambda: answers("/v1/readyz"))
        # Each of these writes a line of 200 bytes or more, so that the pipe is full for sure.
        assert all(answers("/v1/models") for _ in range(50))
        if not plain:
            (worker,) = psutil.Process(service.pid).children()
            worker.send_signal(signal.SIGSTOP)
            until(lambda: not worker.is_running())
            until(lambda: answers("/v1/readyz"))
        service.terminate()
        assert service.wait(PATIENCE) == 0
        assert os.read(reader, SMALLEST_PIPE).startswith(b"{")
    finally:
        service.kill()
        service.wait()
        os.close(reader)
