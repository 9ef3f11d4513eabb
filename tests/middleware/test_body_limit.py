"""The bound on bodies: declared, chunked, and on routes that read none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.uvicorn_config import options
from kronos_api.telemetry.metrics import metrics
from tests.fakes import SleepyEngine, stuck
from tests.web import (
    BATCH,
    JSON,
    SINGLE,
    STREAM,
    body,
    encode,
    listening,
    predictor_of,
    serving,
    until,
)

KIB = 1 / 1024
LIMIT = 1024
POST = f"POST {SINGLE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
READING = [SINGLE, BATCH, STREAM]
PATHS = create_app(Settings(), predictor=predictor_of()).openapi()["paths"]
ROUTES = [(method.upper(), path) for path in PATHS for method in PATHS[path]]


def rejections() -> float:
    """Over all callers; tests are one of them."""
    name = "kronos_request_size_rejections_total"
    found = [s for family in metrics.registry.collect() for s in family.samples if s.name == name]
    return sum(sample.value for sample in found)


async def chunks(size: int, piece: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, size, piece):
        yield b" " * min(piece, size - start)


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("PUT", "/no"), ("GET", "/docs")])
async def test_a_larger_declared_body_is_refused_on_every_route(method: str, path: str) -> None:
    await refuses(method, path, b" " * (LIMIT + 1), f"The body has {LIMIT + 1} bytes")


@pytest.mark.parametrize("path", READING)
async def test_a_larger_chunked_body_is_refused_where_it_is_read(path: str) -> None:
    await refuses("POST", path, chunks(LIMIT + 1), f"The body has {LIMIT + 1} bytes or more")


async def refuses(
    method: str, path: str, content: bytes | AsyncIterator[bytes], found: str
) -> None:
    before = rejections()
    async with serving(max_request_size_mb=KIB) as client:
        response = await client.request(method, path, content=content)
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["code"], error["message"]) == (
        "REQUEST_TOO_LARGE",
        f"{found}; at most {LIMIT} are accepted. Send fewer series, or raise "
        "KRONOS_MAX_REQUEST_SIZE_MB.",
    )
    assert error["request_id"] == response.headers["X-Request-ID"]
    assert response.headers["Connection"] == "close"
    assert rejections() == before + 1


NOT_READING = [route for route in ROUTES if route[1] not in READING]
OTHERS = [("POST", "/v1/healthz"), ("PUT", SINGLE), ("POST", "/v1/models"), ("PUT", "/no")]


@pytest.mark.parametrize(("method", "path"), [*NOT_READING, *OTHERS, ("GET", SINGLE)])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_no_route_uses_is_not_read(
    method: str, path: str, declared: bool
) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"Content-Length": "10"} if declared else {}
    async with serving() as client:
        without = await client.request(method, path)
        response = await client.request(method, path, content=never(), headers=headers)
    assert response.status_code == without.status_code
    # Nothing bounds what may still come before the next request, unless it is declared.
    assert response.headers.get("Connection") == (None if declared else "close")


async def test_unfinished_bodies_of_an_unlisted_caller_hold_no_memory() -> None:
    """Listed callers are served, whatever an unlisted one sends to a route that is open to all."""
    predictor = predictor_of()
    settings = Settings(container_whitelist="127.0.0.1", max_request_size_mb=0.5, body_memory_mb=1)
    app = create_app(settings, predictor=predictor)
    head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunk = b"80000\r\n" + b" " * 2**19 + b"\r\n"
    server = options(Deadlines(60, 60, 60, 60), shutdown_timeout=5)
    async with listening(app, **server) as (host, port):
        await until(lambda: predictor.state == "ready")
        writers = []
        for path in ("/v1/healthz", "/v1/healthz", "/metrics", SINGLE):
            link = await asyncio.open_connection(host, port, local_addr=("127.0.0.2", 0))
            begun = head.format(path) + "Transfer-Encoding: chunked\r\n\r\n"
            link[1].write(begun.encode() + chunk)
            assert (await asyncio.wait_for(link[0].readline(), 30)).startswith(b"HTTP/1.1 40")
            writers.append(link[1])
        content = encode(body())
        padded = content + b" " * (500 * 2**10 - len(content))
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", headers=JSON) as client:
            assert (await client.post(SINGLE, content=padded)).status_code == 200
        for writer in writers:
            writer.close()


async def test_caller_gets_half_of_the_memory_at_most() -> None:
    predictor = predictor_of()
    settings = Settings(
        container_whitelist="127.0.0.0/8", max_request_size_mb=0.75, body_memory_mb=2
    )
    app = create_app(settings, predictor=predictor)
    server = options(Deadlines(60, 60, 60, 60), shutdown_timeout=5)
    content = encode(body())
    padded = content + b" " * (700 * 2**10 - len(content))
    async with listening(app, **server) as (host, port):
        await until(lambda: predictor.state == "ready")
        at = f"http://{host}:{port}"
        greedy = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        more = asyncio.Event()

        async def unfinished() -> AsyncIterator[bytes]:
            yield padded[: 650 * 2**10]
            await more.wait()
            yield padded[650 * 2**10 :]

        async with (
            httpx.AsyncClient(base_url=at, headers=JSON, transport=greedy, timeout=60) as one,
            httpx.AsyncClient(base_url=at, headers=JSON, timeout=60) as other,
        ):
            first = asyncio.create_task(one.post(SINGLE, content=unfinished()))
            await until(lambda: held(app) > 600 * 2**10)
            refused = await one.post(SINGLE, content=padded)
            assert refused.json()["error"]["code"] == "QUEUE_FULL"
            assert "This caller's request bodies" in refused.json()["error"]["message"]
            assert "of 1048576 bytes" in refused.json()["error"]["message"]
            assert (await other.post(SINGLE, content=padded)).status_code == 200
            more.set()
            assert (await first).status_code == 200
    assert held(app) == 0


def held(app: FastAPI) -> int:
    """Bytes of bodies that are counted now."""
    (memory,) = {one.kwargs["memory"] for one in app.user_middleware if "memory" in one.kwargs}
    assert isinstance(memory, BodyMemory)
    return memory.held


@pytest.mark.parametrize("length", ["9" * 5000, str(LIMIT + 1), "0" * 30])
async def test_declared_length_is_checked_before_reading(length: str) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with serving(max_request_size_mb=KIB) as client:
        headers = {"Content-Length": length}
        response = await client.post(SINGLE, content=never(), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("declared", [True, False])
async def test_body_of_exactly_the_limit_passes(declared: bool) -> None:
    content = encode(body())
    padded = content + b" " * (LIMIT - len(content))

    async def pieces() -> AsyncIterator[bytes]:
        yield padded[:10]
        yield padded[10:]

    async with serving(max_request_size_mb=KIB) as client:
        response = await client.post(SINGLE, content=padded if declared else pieces())
    assert response.status_code == 200, response.text


def test_all_routes_are_walked() -> None:
    assert {path for _, path in ROUTES} >= {SINGLE, "/v1/predict/batch", "/health", "/metrics"}


async def test_chunks_with_a_declared_length_are_counted() -> None:
    """The server goes by the chunks, so a length beside them proves nothing."""
    async with serving(max_request_size_mb=KIB) as client:
        headers = {"Content-Length": "10", "Transfer-Encoding": "chunked"}
        response = await client.post(SINGLE, content=chunks(LIMIT + 1), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("length", ["", "Content-Length: 10\r\n"])
async def test_chunks_over_a_real_connection(length: str) -> None:
    settings = Settings(max_request_size_mb=KIB)
    predictor = predictor_of()
    async with listening(create_app(settings, predictor=predictor)) as (host, port):
        await until(lambda: predictor.state == "ready")
        reader, writer = await asyncio.open_connection(host, port)
        head = f"{POST}Transfer-Encoding: chunked\r\n{length}\r\n"
        chunk = b"100\r\n" + b" " * 256 + b"\r\n"
        writer.write(head.encode() + chunk * 5)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 5)  # to the end: the server closes
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"REQUEST_TOO_LARGE" in answer


async def test_client_that_disconnects_within_its_chunks() -> None:
    predictor = predictor_of()
    labels = {"route": SINGLE, "status": "499"}
    before = metrics.registry.get_sample_value("kronos_requests_total", labels) or 0
    async with listening(create_app(Settings(), predictor=predictor)) as (host, port):
        _, writer = await asyncio.open_connection(host, port)
        head = f"{POST}Transfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode() + b"1\r\n{\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        await until(
            lambda: metrics.registry.get_sample_value("kronos_requests_total", labels) == before + 1
        )


async def test_bodies_in_progress_share_their_memory() -> None:
    engine = SleepyEngine()
    predictor = predictor_of(engine)
    content = encode(body())
    padded = content + b" " * (600 * 2**10 - len(content))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(padded), 2**16):
            yield padded[start : start + 2**16]

    app = create_app(Settings(max_request_size_mb=0.75, body_memory_mb=2), predictor=predictor)
    server = options(Deadlines(60, 60, 60, 60), shutdown_timeout=5)
    async with (
        listening(app, **server) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60, headers=JSON) as client,
        stuck(engine) as release,
    ):
        await until(lambda: predictor.state == "ready")
        for _ in range(3):  # room is given back, also by those that were refused
            asked = asyncio.create_task(client.post(SINGLE, content=padded))
            await until(lambda: predictor.active + predictor.queue_depth == 1, 30)
            for large in (padded, pieces()):
                answer = await client.post(SINGLE, content=large)
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "QUEUE_FULL"
                assert answer.headers["Retry-After"] == "1"
            # Who only says that much will come holds nothing.
            _, silent = await asyncio.open_connection(host, port)
            head = f"{POST}Content-Length: 700000\r\n\r\n"
            silent.write(head.encode())
            await silent.drain()
            assert (await client.get("/v1/healthz")).status_code == 200
            small = asyncio.create_task(client.post(SINGLE, content=content))
            await until(lambda: predictor.active + predictor.queue_depth == 2, 30)
            release.set()
            assert [(await one).status_code for one in (asked, small)] == [200, 200]
            silent.close()
            release.clear()
        release.set()
        assert (await client.post(SINGLE, content=pieces())).status_code == 200
