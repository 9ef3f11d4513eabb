"""The load of workers, and what each of them does by it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest

import kronos_api.server.listener as listener_module
from kronos_api.server.listener import Listener
from kronos_api.server.worker_load import LoadTable, WorkerLoad
from tests.web import until


def workers(count: int) -> list[WorkerLoad]:
    """Workers of one master, which accept connections."""
    table = LoadTable()
    loads = [WorkerLoad(table, number) for number in range(1, count + 1)]
    for load in loads:
        load.accept()
    return loads


def test_excess_is_the_load_above_the_least_of_the_others() -> None:
    first, second, third = workers(3)
    for connection in range(3):
        first.note(connection, busy=True)
    second.note("a", busy=True)
    assert (first.excess, second.excess, third.excess) == (3, 1, -1)
    assert first.uneven
    assert not second.uneven
    first.note(0, busy=False)
    assert first.excess == 2


def test_series_of_a_batch_count_each() -> None:
    first, second = workers(2)
    first.service = Mock(forecasts=64, state="ready")
    first.note("a", busy=True)
    assert (first.own, first.excess, second.excess) == (64, 64, -64)


def test_worker_whose_engine_is_stalled_gets_no_callers_while_another_is_ready() -> None:
    first, second = workers(2)
    first.note("a", busy=True)
    second.service = Mock(forecasts=0, state="stalled")
    second.publish()
    assert first.excess < 0
    assert second.uneven


def test_worker_that_does_not_accept_counts_for_none() -> None:
    first, second = workers(2)
    first.note("a", busy=True)
    second.withdraw()
    assert first.excess == 0
    second.note("b", busy=True)
    assert first.excess == 0
    assert WorkerLoad().excess == 0


def test_entries_that_change_while_they_are_read_are_no_error() -> None:
    """As other workers start and retire."""
    table, stop = LoadTable(), threading.Event()

    def toggle() -> None:
        while not stop.is_set():  # without the GIL
            np.bitwise_xor(table._entries, 1, out=table._entries)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(toggle)
        try:
            assert {table.least(0) for _ in range(20_000)} <= {None, 0}
        finally:
            stop.set()


async def test_connections_go_to_the_least_loaded_worker() -> None:
    first, second = workers(2)
    for connection in range(10):
        first.note(connection, busy=True)
    accepted: Counter[str] = Counter()

    class Counting(asyncio.Protocol):
        def __init__(self, name: str, load: WorkerLoad) -> None:
            accepted[name] += 1
            load.note(self, busy=True)

    with ExitStack() as stack:
        shared = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listeners = [
            Listener(shared.dup(), partial(Counting, name, load), load)
            for name, load in (("first", first), ("second", second))
        ]
        for listener in listeners:
            listener.start(64)
        for _ in range(8):
            stack.enter_context(socket.create_connection(shared.getsockname()))
        await until(lambda: accepted.total() == 8)
        assert accepted["first"] <= 1  # if the loop was late, one that was offered for too long
        for listener in listeners:
            await listener.stop()


async def test_each_connection_that_another_worker_accepts_ends_an_offer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many come: their time does not add up to that of one offer without an answer."""
    monkeypatch.setattr(listener_module, "OFFER", 600.0)
    first, _ = workers(2)
    first.note("a", busy=True)
    offers = set()
    with socket.create_server(("127.0.0.1", 0)) as shared:
        listener = Listener(shared.dup(), Mock(), first)
        listener.start(64)
        for _ in range(5):
            with socket.create_connection(shared.getsockname()):
                await until(lambda: listener._offered is not None)
                offers.add(listener._offered)
                shared.accept()[0].close()  # as the other worker does
                await until(lambda: listener._offered is None)
        await listener.stop()
    assert len(offers) == 5


async def test_connection_is_accepted_although_the_least_loaded_worker_hangs() -> None:
    first, _ = workers(2)
    first.note("a", busy=True)
    accepted: list[int] = []

    class Noting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(1)
            transport.close()

    with socket.create_server(("127.0.0.1", 0)) as shared:
        listener = Listener(shared.dup(), Noting, first)
        listener.start(64)
        for _ in range(3):
            accepted.clear()
            with socket.create_connection(shared.getsockname()):
                await until(lambda: bool(accepted))
        await listener.stop()
