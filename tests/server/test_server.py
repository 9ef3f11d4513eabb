"""Start and stop of the server within this process, and the status it shares with a master."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.errors import StartupError
from kronos_api.lifecycle import Lifecycle
from kronos_api.predictor import AsyncPredictor
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.exit import NOT_STARTED
from kronos_api.server.heartbeats import Watchdog
from kronos_api.server.server import Server
from kronos_api.server.uvicorn_config import options
from kronos_api.server.worker_status import Command, Status, WorkerStatus
from tests.fakes import SleepyEngine, stuck
from tests.web import SINGLE, body, encode, predictor_of, until

CONTENT = encode(body())
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
READY = b"GET /v1/readyz HTTP/1.1\r\nHost: x\r\n\r\n"
FORECAST = (
    b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (
        SINGLE.encode(),
        len(CONTENT),
        CONTENT,
    )
)
DEADLINES = Deadlines(headers=30, body=30, send=30, idle=30)


@dataclass
class Running:
    """A server on a port, and the task that it is."""

    server: Server
    port: int
    task: asyncio.Task[None]

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection, which is closed at the end if not before."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer


def bound(port: int = 0) -> socket.socket:
    """A socket that has a port and does not listen."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


@asynccontextmanager
async def running(
    predictor: AsyncPredictor,
    listener: socket.socket | None = None,
    *,
    shutdown_timeout: float = 30,
    startup_timeout: float = 120,
    **more: Any,
) -> AsyncIterator[Running]:
    """A service that is up, if it comes up."""
    settings = Settings(
        inference_timeout=10,
        request_timeout=20,
        shutdown_timeout=30,
        startup_timeout=startup_timeout,
    )
    config = uvicorn.Config(
        create_app(settings, predictor=predictor),
        **options(DEADLINES, shutdown_timeout=shutdown_timeout),
    )
    server = Server(config, **more)
    with listener or bound() as listener:
        port: int = listener.getsockname()[1]
        task = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started or task.done())
        service = Running(server, port, task)
        yield service
        for writer in service.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        server.should_exit = True
        await task


def status_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """The exit status with which `server` ends the process; None if it does not end it."""
    statuses: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "_exit", statuses.append)
        server.end()
    return statuses[0] if statuses else None


async def ask(link: tuple[asyncio.StreamReader, asyncio.StreamWriter], sent: bytes) -> bytes:
    """The headers of the response to `sent`, in lower case."""
    reader, writer = link
    writer.write(sent)
    headers = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).lower()
    await reader.readexactly(int(headers.partition(b"content-length: ")[2].split()[0]))
    return headers


async def test_pipelined_requests_are_answered_before_the_stop() -> None:
    predictor = predictor_of(SleepyEngine(seconds=0.5))
    async with running(predictor) as service:
        link = await service.connect()
        await until(lambda: predictor.state == "ready")
        link[1].write(FORECAST + FORECAST + HEALTH)
        await until(lambda: predictor.active > 0)
        service.server.handle_exit(signal.SIGTERM, None)
        assert predictor.state == "draining"  # at once
        responses = [await ask(link, b"") for _ in range(3)]
        assert all(one.startswith(b"http/1.1 200") for one in responses)
        assert [b"connection: close" in one for one in responses] == [False, False, True]
        assert await link[0].read() == b""
        await asyncio.wait_for(service.task, 20)
    service.server.end()  # does nothing


async def test_additional_worker_listens_when_it_is_ready() -> None:
    release = threading.Event()

    def load() -> Any:
        release.wait(20)
        return SleepyEngine()

    shared = WorkerStatus()
    async with running(AsyncPredictor(load), shared=shared, listen_when_ready=True) as service:
        with pytest.raises(ConnectionRefusedError):
            await service.connect()
        assert shared.status is Status.STARTING
        release.set()
        await until(lambda: shared.status is Status.READY)
        assert (await ask(await service.connect(), READY)).startswith(b"http/1.1 200")


async def test_worker_requests_recycling_after_max_requests_and_serves_on() -> None:
    shared = WorkerStatus()
    async with running(predictor_of(), shared=shared, max_requests=3) as service:
        link, another = await service.connect(), await service.connect()
        for _ in range(3):
            await ask(link, HEALTH)
        await until(lambda: shared.status is Status.RECYCLE_REQUESTED)
        assert b"connection: close" not in await ask(link, HEALTH)
        shared.command = Command.RETIRE
        with pytest.raises(ConnectionRefusedError):
            while True:
                (await service.connect())[1].close()
                await asyncio.sleep(0.02)
        # This worker is retired; the service goes on.
        last = await ask(another, READY)
        assert last.startswith(b"http/1.1 200")
        assert b"connection: close" in last
        assert b"connection: close" in await ask(link, HEALTH)
        await asyncio.wait_for(service.task, 20)


async def test_stop_command_during_the_start_is_obeyed() -> None:
    shared = WorkerStatus()
    shared.command = Command.STOP
    async with running(predictor_of(), shared=shared) as service:
        await asyncio.wait_for(service.task, 20)


async def test_failed_load_ends_with_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        raise StartupError("no such device")

    async with running(AsyncPredictor(load)) as service:
        await asyncio.wait_for(service.task, 20)
    assert status_of(service.server, monkeypatch) == NOT_STARTED


async def test_load_beyond_the_startup_timeout_ends_with_status_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = threading.Event()

    def hang() -> Any:
        release.wait(60)
        return SleepyEngine()

    async with running(AsyncPredictor(hang), startup_timeout=0.1) as service:
        await asyncio.wait_for(service.task, 20)
    assert status_of(service.server, monkeypatch) == NOT_STARTED
    (line,) = [line for line in capsys.readouterr().out.splitlines() if '"error"' in line]
    assert "bundled checkpoint: not loaded within KRONOS_STARTUP_TIMEOUT (0.1 s)" in line
    release.set()


async def test_second_server_to_listen_on_a_port_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both could bind the port, because neither listened."""
    with bound() as late:
        port = late.getsockname()[1]
        async with running(predictor_of(), bound(port)) as winner:
            async with running(predictor_of(), late) as loser:
                await asyncio.wait_for(loser.task, 20)
            assert (await ask(await winner.connect(), HEALTH)).startswith(b"http/1.1 200")
    assert status_of(loser.server, monkeypatch) == NOT_STARTED
    (line,) = [line for line in capsys.readouterr().out.splitlines() if '"error"' in line]
    assert f"cannot listen on 127.0.0.1 port {winner.port}: address already in use" in line
    assert "Traceback" not in line


async def test_reason_of_a_failed_load_is_logged_even_at_an_early_stop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load() -> Any:
        raise StartupError("no such device")

    service = Lifecycle(Settings(), AsyncPredictor(load))
    await service.start()
    await service.stop()
    assert "no such device" in capsys.readouterr().out


async def test_process_with_a_hanging_model_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process then ends without the interpreter's help, which would crash."""
    release = threading.Event()

    def hang() -> None:
        release.wait(20)

    predictor = predictor_of(SleepyEngine(on_step=hang))
    async with running(predictor) as service:
        link = await service.connect()
        await until(lambda: predictor.state == "ready")
        link[1].write(FORECAST)
        await until(lambda: predictor.active > 0)
        service.server.handle_exit(signal.SIGINT, None)
        assert not service.server.force_exit
        service.server.handle_exit(signal.SIGINT, None)
        await asyncio.wait_for(service.task, 20)
        assert await link[0].read() == b""
    assert status_of(service.server, monkeypatch) == 0
    release.set()


async def test_worker_ignores_ctrl_c() -> None:
    async with running(predictor_of(), supervised=True) as service:
        service.server.handle_exit(signal.SIGINT, None)
        assert not service.server.should_exit


async def test_worker_with_a_sigterm_from_outside_serves_until_it_is_retired() -> None:
    shared = WorkerStatus()
    async with running(predictor_of(), shared=shared, supervised=True) as service:
        await until(lambda: shared.status is Status.READY)
        service.server.handle_exit(signal.SIGTERM, None)
        await until(lambda: shared.status is Status.RECYCLE_REQUESTED)
        link = await service.connect()
        assert (await ask(link, READY)).startswith(b"http/1.1 200")
        link[1].close()
        service.server.handle_exit(signal.SIGTERM, None)  # a second one stops it
        await asyncio.wait_for(service.task, 20)
    service.server.end()
    assert shared.status is Status.STOPPED


async def test_worker_with_a_sigterm_of_its_master_stops() -> None:
    shared = WorkerStatus()
    async with running(predictor_of(), shared=shared, supervised=True) as service:
        await until(lambda: shared.status is Status.READY)
        shared.command = Command.STOP
        service.server.handle_exit(signal.SIGTERM, None)
        await asyncio.wait_for(service.task, 20)
    service.server.end()
    assert shared.status is Status.STOPPED


@pytest.mark.parametrize("supervised", [True, False])
async def test_stalled_engine_ends_or_replaces_the_worker(
    monkeypatch: pytest.MonkeyPatch, supervised: bool
) -> None:
    monkeypatch.setattr("kronos_api.server.server.STALL_TICKS", 2)
    monkeypatch.setattr("kronos_api.predictor.SHORTEST_STALL", 0.0)
    shared = WorkerStatus()
    engine = SleepyEngine()
    predictor = predictor_of(engine, inference_timeout=0.2)
    async with (
        stuck(engine) as release,
        running(predictor, shutdown_timeout=0.5, shared=shared, supervised=supervised) as service,
    ):
        await until(lambda: shared.status is Status.READY)
        link = await service.connect()
        link[1].write(FORECAST)
        await until(lambda: predictor.state == "stalled")
        if supervised:
            await until(lambda: shared.status is Status.STALLED)
            assert (await ask(await service.connect(), READY)).startswith(b"http/1.1 503")
            release.set()
        else:
            await asyncio.wait_for(service.task, 20)
    assert service.server.failed is not supervised
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    if not supervised:  # the engine still hangs, so the interpreter is not asked to end
        with suppress(SystemExit):
            service.server.end()
        assert statuses == [NOT_STARTED]


async def test_a_loop_whose_engine_stalls_still_gives_heartbeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kronos_api.predictor.SHORTEST_STALL", 0.0)
    engine = SleepyEngine()
    predictor = predictor_of(engine, inference_timeout=0.2)
    watchdog = Watchdog(60, 3)
    async with (
        stuck(engine),
        running(predictor, shutdown_timeout=0.5, watchdog=watchdog) as service,
    ):
        await until(lambda: predictor.state == "ready")
        (await service.connect())[1].write(FORECAST)
        await until(lambda: predictor.state == "stalled")
        beats = watchdog._beats
        await until(lambda: watchdog._beats > beats + 2)


async def test_a_tick_is_a_heartbeat_for_the_watchdog() -> None:
    watchdog = Watchdog(60, 3)
    async with running(predictor_of(), watchdog=watchdog) as service:
        await until(lambda: watchdog._beats > 2)
        service.server.should_exit = True
        await asyncio.wait_for(service.task, 20)
        assert watchdog._stopped.is_set()
