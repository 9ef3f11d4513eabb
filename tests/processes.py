"""Real processes for tests: the service with its workers, and Redis."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
OPENER = build_opener(ProxyHandler({}))

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="no redis-server here (Debian: redis-server)"
)


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    """Poll for a condition, with a generous limit."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.1)


def run(*command: str | Path, **environment: str) -> str:
    """The output of a command that must succeed, outside this tree."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=clean | environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_wheel(project: Path, folder: Path) -> Path:
    """The wheel of `project`, built in `folder`."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet")
    run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, project)
    (built,) = folder.glob("*.whl")
    return built


def free_port() -> int:
    """A free loopback port below the ephemeral range.

    The kernel would give an ephemeral port to another connection before the server listens on it,
    or while the server is restarted. No call in one process returns a port twice.
    """
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of Linux
    lowest = int(limits.read_text("ascii").split()[0]) if limits.exists() else 32768
    while True:
        port = _ports.randrange(lowest // 2, lowest)
        if port not in _given:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _given.add(port)
                return port


_ports: Final = random.SystemRandom()  # Hypothesis seeds the other generators
_given: Final[set[int]] = set()


class Redis:
    """A redis-server on a port of its own, which keeps nothing when it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly no --loglevel warning"
        self._process = subprocess.Popen(
            ["redis-server", *options.split(), "--save", ""],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as link:
                link.sendall(b"PING\r\n")
                if link.recv(7) == b"+PONG\r\n":
                    return
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    redis = Redis(folder)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


class Service:
    """`kronos-api serve` on a port of its own."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, log: Path, environment: dict[str, str]
    ) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.environment = environment
        self.url = f"http://127.0.0.1:{port}"

    def kill(self) -> None:
        """End the process at once, if it still runs."""
        self.process.kill()
        self.process.wait(60)

    def workers(self) -> set[int]:
        """Process ids of the workers."""
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def get(self, path: str) -> Any:
        """The JSON at `path`."""
        with OPENER.open(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def wait_for(self, event: str, times: int = 1, seconds: float = 120) -> list[dict[str, Any]]:
        """The log lines of that event, once there are `times` or more."""
        deadline = time.monotonic() + seconds
        while True:
            lives = self.process.poll() is None
            if len(lines := self.lines(event)) >= times:
                return lines
            assert lives, self.log.read_text("utf-8")
            assert time.monotonic() < deadline, self.log.read_text("utf-8")
            time.sleep(0.05)

    def wait_until_it_listens(self, seconds: float = 120) -> None:
        """Until its port takes connections."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", self.port), seconds).close()
            assert self.process.poll() is None, self.log.read_text("utf-8")
            assert time.monotonic() < deadline, self.log.read_text("utf-8")
            time.sleep(0.05)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of that event."""
        whole, _, _ = self.log.read_text("utf-8").rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if line["event"] == event]


def without_settings() -> dict[str, str]:
    """The environment of this process without settings."""
    settings = ("KRONOS_", "GUNICORN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


def start_service(
    folder: Path,
    workers: int = 1,
    command: Sequence[str] = (sys.executable, "-m", "kronos_api", "serve"),
    **settings: str,
) -> Service:
    """Start a service by `command`; it is not up yet.

    Names of `settings` are those of the environment, without `KRONOS_`.
    """
    port = free_port()
    own = {"HOST": "127.0.0.1", "PORT": str(port), "TORCH_THREADS": "1"}
    own |= {"GUNICORN_WORKERS": str(workers), "RATE_LIMIT_DIR": str(folder)} | settings
    named = {
        name if name.startswith("GUNICORN_") else f"KRONOS_{name}": value
        for name, value in own.items()
    }
    log = folder / f"log-{port}"
    environment = without_settings() | named
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,  # where no .env of a developer lies
            stdout=output,
            stderr=output,
        )
    return Service(process, port, log, environment)


@contextmanager
def services(
    folder: Path, instances: int = 1, workers: int = 1, **settings: Any
) -> Iterator[list[Service]]:
    """Services that are ready, each with its workers."""
    running = [start_service(folder, workers, **settings) for _ in range(instances)]
    try:
        for service in running:
            service.wait_for("model_ready", workers)
            service.wait_until_it_listens()  # a small model can be loaded before the port is open
        yield running
    finally:
        for service in running:
            service.process.terminate()
        for service in running:
            try:
                service.process.wait(120)
            finally:
                service.kill()
