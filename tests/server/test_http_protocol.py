"""Slow, silent and malformed callers on real connections."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

import psutil
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.server import half_closed
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.http_protocol import Protocol
from kronos_api.server.lingering import LINGER, RESPONSE_START
from kronos_api.server.parser import EVENTS_PER_TURN, FREE_CHUNKS, MAX_HEADERS, BoundedBuffer
from kronos_api.server.uvicorn_config import options
from kronos_api.telemetry.metrics import metrics
from tests import web
from tests.fakes import SleepyEngine
from tests.web import JSON, SINGLE, body, encode, predictor_of, until

PATIENT = Deadlines(60, 60, 60, 60)
HASTY = 0.4
"""Seconds of the deadline that a test is about."""
LATE = 30.0
"""Seconds by which a busy machine can be late; a dripping client would take far longer."""
POST = f"POST {SINGLE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HEADERS = POST + "Content-Length: %d\r\n\r\n"
NO_HTTP = b"no HTTP\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"


def listening(
    app: ASGIApp, deadlines: Deadlines = PATIENT
) -> AbstractAsyncContextManager[tuple[str, int]]:
    """The address at which a server with these deadlines serves `app`."""
    limit = Settings().max_request_bytes
    return web.listening(app, **options(deadlines, shutdown_timeout=5, max_body=limit))


@asynccontextmanager
async def service(
    engine: SleepyEngine | None = None, deadlines: Deadlines = PATIENT
) -> AsyncIterator[tuple[str, int]]:
    """The address of the whole service around a fake engine."""
    predictor = predictor_of(engine)
    app = create_app(Settings(), predictor=predictor)
    async with listening(app, deadlines) as address:
        await until(lambda: predictor.state == "ready")
        yield address


class Caller:
    """A connection that is written to by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.began = time.monotonic()
        self.dripping: asyncio.Task[None] | None = None

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data if isinstance(data, bytes) else data.encode())
        await self.writer.drain()

    def drip(self, piece: bytes, every: float = 0.05) -> None:
        """Send `piece` again and again while the test reads.

        Not by the transport, which would drop received bytes when it can no longer write.
        """
        link = socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno()))

        async def drip() -> None:
            with link, suppress(OSError):
                while piece:
                    link.send(piece)
                    await asyncio.sleep(every)

        self.dripping = asyncio.create_task(drip())

    async def response(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON body of a response that ends with the connection."""
        headers, _, content = (await self.rest()).partition(b"\r\n\r\n")
        assert b"connection: close" in headers.lower()
        assert b"x-request-id: " in headers.lower()
        return int(headers.split()[1]), json.loads(content)

    async def rest(self) -> bytes:
        """All bytes until the end, which is a reset if the caller was still sending."""
        received = b""
        with suppress(ConnectionResetError):
            while more := await asyncio.wait_for(self.reader.read(2**16), LATE):
                received += more
        return received + bytes(self.reader._buffer)  # type: ignore[attr-defined]

    async def closed(self) -> float:
        """Seconds from the start until the server closed without another byte."""
        assert await asyncio.wait_for(self.reader.read(), LATE) == b""
        return time.monotonic() - self.began

    async def one_response(self, status: int = 200) -> bytes:
        """The body of a response after which the connection stays open."""
        headers = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), LATE)
        assert headers.startswith(b"HTTP/1.1 %d" % status)
        length = int(headers.lower().partition(b"content-length: ")[2].split()[0])
        return await self.reader.readexactly(length)


@asynccontextmanager
async def calling(address: tuple[str, int]) -> AsyncIterator[Caller]:
    began = time.monotonic()  # or later than the server, which is in the same loop
    reader, writer = await asyncio.open_connection(*address)
    caller = Caller(reader, writer)
    caller.began = began
    try:
        yield caller
    finally:
        if caller.dripping is not None:
            caller.dripping.cancel()
        writer.close()


def slow(deadline: str) -> float:
    labels = {"deadline": deadline}
    return metrics.registry.get_sample_value("kronos_slow_callers_total", labels) or 0


async def test_silent_connection_is_closed() -> None:
    before = slow("headers")
    async with (
        service(deadlines=replace(PATIENT, headers=HASTY)) as address,
        calling(address) as caller,
    ):
        assert await caller.closed() > HASTY - 0.05
    assert slow("headers") == before + 1


@pytest.mark.parametrize("drip", [b"", b"X-A: b\r\n"])
async def test_slow_headers_get_408(drip: bytes) -> None:
    before = slow("headers")
    async with (
        service(deadlines=replace(PATIENT, headers=HASTY)) as address,
        calling(address) as caller,
    ):
        await caller.send("POST / HTTP/1.1\r\nHost: x\r\n")
        caller.drip(drip)
        status, content = await caller.response()
    assert (status, content["error"]["code"]) == (408, "REQUEST_TIMEOUT")
    assert slow("headers") == before + 1


@pytest.mark.parametrize("drip", [b"", b" "])
@pytest.mark.parametrize("chunked", [True, False])
async def test_slow_body_gets_408(drip: bytes, chunked: bool) -> None:
    before = slow("body")
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1000"
    async with (
        service(deadlines=replace(PATIENT, body=HASTY)) as address,
        calling(address) as caller,
    ):
        await caller.send(f"{POST}X-Request-ID: me\r\n{length}\r\n\r\n")
        caller.drip(b"1\r\n \r\n" if chunked and drip else drip)
        status, content = await caller.response()
        assert time.monotonic() - caller.began > HASTY - 0.05
    assert (status, content["error"]["code"]) == (408, "REQUEST_TIMEOUT")
    assert content["error"]["request_id"] == "me"
    assert slow("body") == before + 1


async def test_unread_body_has_a_deadline_after_its_response() -> None:
    """The response is sent before the body is complete; the rest of the body has a deadline too."""
    before = slow("body")
    async with (
        service(deadlines=replace(PATIENT, body=HASTY)) as address,
        calling(address) as caller,
    ):
        await caller.send("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        headers = await caller.reader.readuntil(b"\r\n\r\n")
        assert headers.startswith(b"HTTP/1.1 405")
        caller.drip(b" ")
        rest = await caller.rest()
        assert b"HTTP/1.1" not in rest
    assert slow("body") == before + 1


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}])
async def test_client_that_is_still_sending_gets_its_413(headers: dict[str, str]) -> None:
    """And no reset, although the body is not read."""
    size = Settings().max_request_bytes + 2**20

    def ask(address: tuple[str, int]) -> list[int]:
        statuses = []
        for _ in range(5):
            connection = HTTPConnection(*address, timeout=60)
            content = b"%x\r\n%s\r\n0\r\n\r\n" % (size, bytes(size)) if headers else bytes(size)
            connection.request("POST", SINGLE, content, JSON | headers)
            statuses.append(connection.getresponse().status)
            connection.close()
        return statuses

    async with service() as address:
        assert await asyncio.to_thread(ask, address) == [413] * 5


async def test_client_that_sends_forever_is_disconnected() -> None:
    async with service() as address, calling(address) as caller:
        await caller.send((HEADERS % 10**9).encode())
        assert (await caller.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413")
        caller.drip(bytes(1000))
        assert caller.dripping is not None
        await asyncio.wait_for(caller.dripping, LINGER + LATE)


async def test_refused_client_that_has_gone_leaves_no_descriptor_open() -> None:
    """Although its FIN is behind more body than the server reads before it responds."""
    ask = HEADERS.replace("POST", "HEAD") % 10**9
    async with service() as address:
        before = psutil.Process().num_fds()
        for _ in range(5):
            with socket.create_connection(address) as link:  # all comes before the server looks
                link.sendall(ask.encode() + bytes(300_000))
            await asyncio.sleep(0.05)
        await until(lambda: psutil.Process().num_fds() <= before, LATE)


async def test_idle_connection_is_closed_without_a_response() -> None:
    async with (
        service(deadlines=replace(PATIENT, idle=HASTY)) as address,
        calling(address) as caller,
    ):
        await caller.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        caller.began = time.monotonic()
        assert await caller.one_response() == b'{"status":"ok"}'
        assert await caller.closed() > HASTY - 0.05


async def test_headers_deadline_does_not_run_between_requests() -> None:
    hasty = replace(PATIENT, headers=HASTY)
    async with service(deadlines=hasty) as address, calling(address) as caller:
        for _ in range(3):
            await caller.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await caller.one_response() == b'{"status":"ok"}'
            await asyncio.sleep(HASTY + 0.05)


async def test_late_body_does_not_start_the_headers_deadline() -> None:
    before = slow("headers")
    hasty = replace(PATIENT, headers=HASTY)
    async with service(deadlines=hasty) as address, calling(address) as caller:
        await caller.send("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        await caller.one_response(405)
        await caller.send("late")
        await asyncio.sleep(2 * HASTY)
        await caller.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await caller.one_response() == b'{"status":"ok"}'
    assert slow("headers") == before


async def test_headers_of_a_second_request_have_a_deadline() -> None:
    async with (
        service(deadlines=replace(PATIENT, headers=HASTY)) as address,
        calling(address) as caller,
    ):
        await caller.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await caller.one_response()
        caller.began = time.monotonic()
        await caller.send("GET /health")
        caller.drip(b"/")
        status, _ = await caller.response()
    assert status == 408


async def test_complete_request_has_no_deadline_while_it_waits_for_its_forecast() -> None:
    content = encode(body())
    hasty = Deadlines(1, 1, 1, 1)
    async with service(SleepyEngine(seconds=2.5), hasty) as address, calling(address) as caller:
        await caller.send((HEADERS % len(content)).encode() + content)
        answer = json.loads(await caller.one_response())
        assert time.monotonic() - caller.began > 2
        await caller.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await caller.one_response()
    assert len(answer["prediction"]) == 2


async def test_body_that_the_server_reads_slowly_is_no_slow_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(2.5 * HASTY)
            while (await receive()).get("more_body"):
                pass
        await large({**scope, "path": "/close"}, receive, send)

    size = 2**20
    async with listening(app, replace(PATIENT, body=HASTY)) as address, calling(address) as caller:
        await caller.send((HEADERS % size).encode() + bytes(size))
        assert (await caller.reader.read()).startswith(b"HTTP/1.1 200")


async def test_pipelined_requests_are_all_answered() -> None:
    content = encode(body())
    async with (
        service(SleepyEngine(seconds=0.5), replace(PATIENT, idle=HASTY)) as address,
        calling(address) as caller,
    ):
        one = (HEADERS % len(content)).encode() + content
        await caller.send(one + one + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2):
            assert b"prediction" in await caller.one_response()
        assert await caller.one_response() == b'{"status":"ok"}'
        await caller.closed()


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("HEAD", "/health", 200),
        ("HEAD", SINGLE, 405),
        ("HEAD", "/nothing", 404),
        ("GET", "http://elsewhere/health", 200),
        ("GET", "HTTP://elsewhere:8000?a=/health", 200),
        ("GET", "https://elsewhere/nothing", 404),
        ("GET", "ftp://elsewhere/health", 404),
    ],
)
async def test_head_and_absolute_targets_are_answered(
    method: str, target: str, status: int
) -> None:
    """HEAD gets the headers of GET's response; the next bytes are the next response."""
    ask = f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with service() as address, calling(address) as caller:
        for _ in range(2):
            await caller.send(ask)
            headers = await caller.reader.readuntil(b"\r\n\r\n")
            assert headers.startswith(b"HTTP/1.1 %d " % status)
            (length,) = (int(n) for n in re.findall(rb"(?m)^content-length: (\d+)\r$", headers))
            assert length > 0
            if method == "GET":
                await caller.reader.readexactly(length)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a response larger than the buffers of a connection."""
    assert scope["type"] in ("http", "lifespan")
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{name}.complete"})
        return
    close = [(b"connection", b"close")] if scope["path"] == "/close" else []
    await send({"type": "http.response.start", "status": 200, "headers": close})
    await send({"type": "http.response.body", "body": bytes(32 * 2**20)})


@pytest.mark.parametrize("path", ["/", "/close"])
async def test_response_that_the_client_does_not_read_is_dropped(path: str) -> None:
    before = slow("send")
    async with (
        listening(large, replace(PATIENT, send=HASTY)) as address,
        calling(address) as caller,
    ):
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await caller.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
        while slow("send") == before:
            assert time.monotonic() - caller.began < HASTY + LATE
            await asyncio.sleep(0.02)
    assert slow("send") == before + 1


async def test_large_response_arrives_whole() -> None:
    before = slow("send")
    async with listening(large) as address, calling(address) as caller:
        await caller.send("GET /close HTTP/1.1\r\nHost: x\r\n\r\n")
        received = await caller.reader.read()
    assert len(received) > 32 * 2**20
    assert slow("send") == before


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (b"GET / HTTP/9\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (b"GET / HTTP/1.1\r\nHost: \xff\x00\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ((POST + "Content-Length: 3\r\n" + CHUNKED).encode(), 400, "MALFORMED_REQUEST"),
        (
            (POST + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n").encode(),
            400,
            "MALFORMED_REQUEST",
        ),
        (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * MAX_HEADERS), 431, "HEADERS_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: %s" % (b"a" * 65536), 431, "HEADERS_TOO_LARGE"),
    ],
)
async def test_malformed_http_gets_the_error_envelope(sent: bytes, status: int, code: str) -> None:
    async with service() as address, calling(address) as caller:
        await caller.send(sent)
        answered, content = await caller.response()
    assert (answered, content["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b" \r\n" * 2000, 400, "MALFORMED_REQUEST"),
        (b"1\r\n \r\n" * 2000, 400, "MALFORMED_REQUEST"),
        (b"f" * 16 + b"\r\n", 413, "REQUEST_TOO_LARGE"),
    ],
)
async def test_bad_chunks_are_refused_at_once(sent: bytes, status: int, code: str) -> None:
    async with service() as address, calling(address) as caller:
        await caller.send((POST + CHUNKED).encode() + sent)
        answered, content = await caller.response()
    assert (answered, content["error"]["code"]) == (status, code)


async def test_tiny_chunks_are_parsed_in_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    handle_events = Protocol.handle_events

    def counted(self: Protocol) -> None:
        handle_events(self)
        turns.append(EVENTS_PER_TURN - self.conn.events_left)

    monkeypatch.setattr(Protocol, "handle_events", counted)
    content = encode(body())
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in content)
    assert EVENTS_PER_TURN * 2 < len(content) < FREE_CHUNKS
    async with service() as address, calling(address) as caller:
        await caller.send((POST + CHUNKED).encode() + chunks + b"0\r\n\r\n")
        assert b"prediction" in await caller.one_response()
        assert sum(turns) == len(content) + 2
        await caller.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await caller.one_response()


async def test_body_of_an_unlisted_client_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    extract = BoundedBuffer.maybe_extract_next_line

    def counted(self: BoundedBuffer) -> bytearray | None:
        parsed.append(1)
        return extract(self)

    monkeypatch.setattr(BoundedBuffer, "maybe_extract_next_line", counted)
    app = create_app(Settings(container_whitelist="192.0.2.1"), predictor=predictor_of())
    async with listening(app) as address, calling(address) as caller:
        await caller.send((POST + CHUNKED).encode() + b"1\r\n \r\n" * 40_000)
        status, _ = await caller.response()
    assert status == 403
    assert parsed == []


async def test_chunked_body_that_no_route_reads_ends_the_connection() -> None:
    async with service() as address, calling(address) as caller:
        await caller.send("POST /health HTTP/1.1\r\nHost: x\r\n" + CHUNKED)
        await caller.send("1\r\n \r\n" * 200 + "0\r\n\r\n")
        assert (await caller.response())[0] == 405


async def test_empty_line_after_a_body_is_ignored() -> None:
    content = encode(body())
    async with service() as address, calling(address) as caller:
        for _ in range(2):
            await caller.send((HEADERS % len(content)).encode() + content + b"\r\n")
            await caller.one_response()


@pytest.mark.parametrize("chunked", [True, False])
async def test_half_closed_client_gets_its_response(chunked: bool) -> None:
    content = encode(body())
    async with service(SleepyEngine(seconds=0.3)) as address, calling(address) as caller:
        one = (HEADERS % len(content)).encode() + content
        if chunked:
            pieces = (content[:99], content[99:])
            framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            one = (POST + CHUNKED).encode() + framed + b"0\r\n\r\n"
        await caller.send(one + one)
        caller.writer.write_eof()
        first = await caller.one_response()
        second = await caller.rest()
    assert b"prediction" in first
    assert second.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in second.lower()


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize("refused", [True, False])
async def test_half_closed_client_with_long_forecast_is_probed_and_gets_its_response(
    monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    monkeypatch.setattr(half_closed, "PROBE_AFTER", 0.1)
    engine = SleepyEngine(seconds=2)
    if refused:
        engine.on_step = fail_late
    content = encode(body())
    async with service(engine) as address, calling(address) as caller:
        headers = (HEADERS % len(content)).replace("HTTP/1.1", version)
        await caller.send(headers.encode() + content)
        caller.writer.write_eof()
        first = await asyncio.wait_for(caller.reader.read(1000), LATE)
        assert first == RESPONSE_START
        whole = first + await caller.rest()
    assert whole.startswith(b"HTTP/1.1 500 " if refused else b"HTTP/1.1 200 ")
    assert whole.count(b"HTTP/1.1") == 1


def fail_late() -> None:
    time.sleep(1)
    raise RuntimeError("the engine failed")


async def test_closed_client_ends_its_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_closed, "PROBE_AFTER", 0.1)
    labels = {"route": SINGLE, "status": "499"}
    content = encode(body())
    engine = SleepyEngine(seconds=600, steps=6000)
    async with service(engine) as address:
        before = metrics.registry.get_sample_value("kronos_requests_total", labels) or 0
        async with calling(address) as caller:
            await caller.send((HEADERS % len(content)).encode() + content)
            await until(lambda: bool(engine.runs))
        await until(
            lambda: metrics.registry.get_sample_value("kronos_requests_total", labels) == before + 1
        )


@pytest.mark.parametrize("sent", ["", "GET /health HT", HEADERS % 10, POST + CHUNKED + "5\r\nab"])
@pytest.mark.parametrize("behind", [True, False])
async def test_client_that_stops_within_a_request_is_disconnected(sent: str, behind: bool) -> None:
    async with service() as address, calling(address) as caller:
        await caller.send(("GET /health HTTP/1.1\r\nHost: x\r\n\r\n" if behind else "") + sent)
        caller.writer.write_eof()
        if behind:
            await caller.one_response()
        await caller.closed()


async def test_a_cut_chunk_ends_the_request_it_is_in() -> None:
    labels = {"route": SINGLE, "status": "499"}
    async with service() as address, calling(address) as caller:
        before = metrics.registry.get_sample_value("kronos_requests_total", labels) or 0
        await caller.send(POST + CHUNKED)
        await asyncio.sleep(0.05)
        await caller.send("zz\r\n")
        status, content = await caller.response()
        await until(
            lambda: metrics.registry.get_sample_value("kronos_requests_total", labels) == before + 1
        )
    assert (status, content["error"]["code"]) == (400, "MALFORMED_REQUEST")


async def test_garbage_in_a_body_after_its_response_gets_no_second_response() -> None:
    async with service() as address, calling(address) as caller:
        await caller.send("GET /no HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n")
        await caller.send("zz\r\n")
        received = await asyncio.wait_for(caller.reader.read(), LATE)
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("behind", [True, False])
async def test_log_lines_about_the_next_request_lack_the_id_of_the_previous(
    capsys: pytest.CaptureFixture[str], behind: bool
) -> None:
    async with service() as address, calling(address) as caller:
        # Enough bytes that reading pauses and resumes; or the next request in the same packet.
        content = b"{" if behind else bytes(3_000_000)
        headers = HEADERS.replace("Host: x", "Host: x\r\nX-Request-ID: before") % len(content)
        await caller.send(headers.encode() + content + (NO_HTTP if behind else b""))
        await caller.one_response(400)
        if not behind:
            await caller.send(NO_HTTP)
        await caller.rest()
    lines = [line for line in capsys.readouterr().out.splitlines() if "Invalid HTTP" in line]
    assert lines
    assert "before" not in lines[0]


async def test_requests_of_a_connection_share_one_state() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.append(scope["state"]["connection"])
        await large({**scope, "path": "/"}, receive, send)

    async with listening(app) as address:
        for _ in range(2):
            async with calling(address) as caller:
                for _ in range(2):
                    await caller.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
                    await caller.reader.readuntil(b"\r\n\r\n")
    assert seen[0] is seen[1]
    assert seen[2] is seen[3]
    assert seen[0] is not seen[2]
    assert all(connection.peer == "127.0.0.1" for connection in seen)


async def test_request_cannot_set_its_own_address() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["client"][0] == "127.0.0.1"
            assert scope["scheme"] == "http"
        await large(scope, receive, send)

    async with listening(app) as address, calling(address) as caller:
        forged = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        await caller.send(f"HEAD /close HTTP/1.1\r\nHost: x\r\n{forged}\r\n")
        assert (await caller.reader.read()).startswith(b"HTTP/1.1 200")
