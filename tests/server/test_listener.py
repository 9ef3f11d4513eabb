"""Accepting connections: from Gunicorn's own sockets too, and the waiting ones before a stop."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.sock import TCPSocket

from kronos_api.server import listener
from kronos_api.server.listener import Listener
from kronos_api.telemetry import logging
from tests.web import until

made: list[socket.socket] = []
"""The service's ends of the connections that were accepted."""


class Noting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made.append(transport.get_extra_info("socket"))
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport.close()


@pytest.fixture
def shared() -> Iterator[socket.socket]:
    made.clear()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


async def test_accepted_connections_have_tcp_nodelay() -> None:
    """Gunicorn's sockets have protocol 0, and asyncio sets TCP_NODELAY only for IPPROTO_TCP."""
    made.clear()
    made_by: Any = TCPSocket
    shared = made_by(("127.0.0.1", 0), Config(), log=None)
    assert shared.sock.proto == 0
    # An accepted connection inherits the option, which would hide a missing call.
    shared.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    accepting = Listener(shared, Noting)
    accepting.start(16)
    with socket.create_connection(shared.getsockname()):
        await until(lambda: bool(made))
        assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await accepting.stop()


async def test_waiting_connections_are_accepted_before_the_stop(shared: socket.socket) -> None:
    address = shared.getsockname()
    accepting = Listener(shared, Noting)
    accepting.start(16)
    with ExitStack() as callers:
        # The event loop does not run meanwhile, so all of them wait.
        for _ in range(10):
            callers.enter_context(socket.create_connection(address))
        assert await accepting.stop() == 10
        assert len(made) == 10
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


async def test_listeners_of_one_socket_share_connections(shared: socket.socket) -> None:
    address = shared.getsockname()
    counts: Counter[int] = Counter()

    class Counting(Noting):
        def __init__(self, worker: int) -> None:
            counts[worker] += 1

    workers = [
        Listener(socket.socket(fileno=os.dup(shared.fileno())), partial(Counting, number))
        for number in range(2)
    ]
    for worker in workers:
        worker.start(64)
    with ExitStack() as callers:
        for _ in range(20):
            callers.enter_context(socket.create_connection(address))
        await until(lambda: counts.total() == 20)
        for worker in workers:
            await worker.stop()
    assert min(counts[0], counts[1]) >= 5


async def test_failed_accept_is_retried(
    shared: socket.socket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listener, "PAUSE", 0.05)
    logging.configure()
    accepting = Listener(shared, Noting)
    accepting.start(16)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as caller:
        caller.setblocking(False)
        full = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
        try:
            taken = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (full, hard))
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(BlockingIOError):
                caller.connect(shared.getsockname())
            printed = ""
            while "accept_failed" not in printed:
                await asyncio.sleep(0.01)
                printed += capsys.readouterr().out
            assert made == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for file in taken:
                os.close(file)
        await until(lambda: len(made) == 1)
        await accepting.stop()
    assert json.loads(printed.splitlines()[0])["reason"] == "Too many open files"
