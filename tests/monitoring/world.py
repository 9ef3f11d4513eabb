"""Two replicas with Redis and a nameserver, their monitoring, and callers behind a proxy."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

from tests.monitoring.receivers import Receivers, receivers
from tests.monitoring.sandbox import Sandbox, sandboxes
from tests.monitoring.stack import Stack, monitoring
from tests.processes import OPENER, Redis, Service, redis_server, until
from tests.security.dns import Nameserver, answering
from tests.web import JSON, SINGLE, body

SERVE = (sys.executable, "-m", "tests.paced_service", "0.02", "serve")
LISTED = "10.1.0.1"
SETTINGS = {
    # The tests are a trusted proxy that names any caller.
    "TRUSTED_PROXIES": "localhost",
    "CONTAINER_WHITELIST": "10.1.0.0/16,web",
    "RATE_LIMIT_PER_MINUTE": "40",
    "INFERENCE_TIMEOUT": "6",
    "REPLICAS": "2",
    "GUNICORN_WORKER_CONNECTIONS": "24",
    "GUNICORN_TIMEOUT": "0",
}
MAX_MEMORY = 64 * 2**20
"""Bytes of Redis, as in `docker-compose.yml`."""
HORIZON_OF_SECONDS = 50
"""Candles that the paced engine makes in a second."""


@dataclass
class World:
    """Two replicas with their Redis and nameserver, and what watches them."""

    sandboxes: list[Sandbox]
    redis: Redis
    dns: Nameserver
    stack: Stack
    received: Receivers
    memory_of_redis: int

    @property
    def replicas(self) -> list[Service]:
        """The services themselves."""
        return [one.service for one in self.sandboxes]

    def start_redis(self, memory: int) -> None:
        """Start Redis with at most these bytes; again if its limit differs."""
        if self.redis.running() and memory != self.memory_of_redis:
            self.redis.kill()
        if not self.redis.running():
            self.redis.start()
            configure(self.redis, "maxmemory", memory)
            self.memory_of_redis = memory

    def ask(self, caller: str | None = LISTED, *, seconds: float = 0.1, replica: int = 0) -> int:
        """The status of one forecast that takes `seconds`, for a caller behind the proxy."""
        content = json.dumps(body(30, horizon=int(seconds * HORIZON_OF_SECONDS))).encode()
        headers = JSON | ({} if caller is None else {"X-Forwarded-For": caller})
        request = Request(self.replicas[replica].url + SINGLE, content, headers)
        try:
            with OPENER.open(request, timeout=60) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    def ask_all(self, callers: list[str | None], **options: Any) -> list[int]:
        """The statuses of forecasts of all callers at once."""
        with ThreadPoolExecutor(64) as pool:
            return list(pool.map(lambda caller: self.ask(caller, **options), callers))

    def fire(self, *names: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until all these alerts have reached the receiver, though some may have cleared."""

        def fired() -> bool:
            meanwhile()
            return set(names) <= self.received.unread

        self.wait(fired, lambda: f"{set(names) - self.received.unread} did not fire")

    def clear(self, *names: str) -> None:
        """Wait until the receiver knows that all these alerts are resolved."""

        def cleared() -> bool:
            return not set(names) & self.received.firing()

        self.wait(cleared, lambda: f"{set(names) & self.received.firing()} still fire")
        assert set(names) <= self.received.resolved
        self.received.unread -= set(names)

    @staticmethod
    def wait(holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Poll with a generous limit, and say what is missing after it."""
        try:
            until(holds, 90)
        except AssertionError:
            raise AssertionError(otherwise()) from None


def listed(count: int, network: int = 0) -> list[str | None]:
    """Addresses of the whitelist, each a caller with a quota of its own."""
    return [f"10.1.{network}.{number % 250 + 1}" for number in range(count)]


def configure(redis: Redis, name: str, value: int) -> None:
    """Change a setting of the running Redis."""
    with socket.create_connection(("127.0.0.1", redis.port), 10) as link:
        link.sendall(f"CONFIG SET {name} {value}\r\n".encode())
        assert link.recv(5) == b"+OK\r\n"


@contextmanager
def running_world(folder: Path, command: Sequence[str] = SERVE, **changed: str) -> Iterator[World]:
    """All of it, with files in `folder`, and replicas by `command` with these settings."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        configure(redis, "maxmemory", MAX_MEMORY)
        dns = stack.enter_context(answering())
        servers = ":".join(map(str, dns.address))
        settings = SETTINGS | {"REDIS_URL": redis.url, "DNS_SERVERS": servers} | changed
        both = stack.enter_context(sandboxes(folder, 2, command, settings))
        kept = stack.enter_context(receivers())
        ports = [one.service.port for one in both]
        watched = stack.enter_context(monitoring(folder, ports, redis.url, kept))
        yield World(both, redis, dns, watched, kept, MAX_MEMORY)
