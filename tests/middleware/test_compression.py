"""Responses are compressed where the caller asks for it and it is worth it."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest
import zstandard
from starlette.types import Message, Receive, Scope, Send

from kronos_api.middleware.compression import SMALLEST, Compression, preferred
from tests.web import SINGLE, body, client_of, serving

MANY = body(4, horizon=128, overrides={"sample_count": 64, "seed": 1}, return_samples=True)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("zstd;q=0.5, gzip;q=0.4", "zstd"),
        ("gzip;q=0", None),
        ("gzip; q=0.000, zstd;q=0", None),
        ("gzip;q=x", None),
        ("br", None),
        ("identity", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("*, gzip;q=0", None),
    ],
)
def test_preferred_coding(accepted: str, chosen: str | None) -> None:
    assert preferred(accepted) == chosen


async def raw(client: httpx.AsyncClient, method: str, url: str, **more: object) -> httpx.Response:
    """The response whose `content` is as it came."""
    request = client.build_request(method, url, **more)  # type: ignore[arg-type]
    response = await client.send(request, stream=True)
    response._content = b"".join([piece async for piece in response.aiter_raw()])
    return response


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity"])
async def test_large_response_is_compressed(encoding: str) -> None:
    async with serving() as client:
        headers = {"Accept-Encoding": encoding}
        response = await raw(client, "POST", SINGLE, json=MANY, headers=headers)
    content = response.content
    assert response.headers["Content-Length"] == str(len(content))
    assert response.headers["Vary"] == "Accept-Encoding"
    if encoding == "identity":
        assert "Content-Encoding" not in response.headers
        assert len(content) > 400_000
    else:
        assert response.headers["Content-Encoding"] == encoding
        assert len(content) < 300_000
        unpacked = gzip.decompress(content) if encoding == "gzip" else zstandard.decompress(content)
        content = unpacked
    assert len(json.loads(content)["samples"]) == 64


async def test_small_responses_are_not_compressed() -> None:
    async with serving() as client:
        response = await raw(client, "GET", "/health", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in response.headers
    assert response.content == b'{"status":"ok"}'


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
async def test_head_has_the_headers_of_get(path: str) -> None:
    async with serving() as client:
        headers = {"Accept-Encoding": "gzip"}
        get = await raw(client, "GET", path, headers=headers)
        head = await raw(client, "HEAD", path, headers=headers)
    assert get.headers["Content-Encoding"] == head.headers["Content-Encoding"] == "gzip"
    assert len(gzip.decompress(get.content)) > SMALLEST
    if path != "/metrics":  # whose numbers change
        assert get.headers["Content-Length"] == head.headers["Content-Length"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_stream_is_decodable_piece_by_piece(encoding: str) -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(b"content-type", b"text/csv")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in (b"a" * 5000, b"b" * 50_000, b""):
            await send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    headers = [(b"accept-encoding", encoding.encode())]
    scope: Scope = {"type": "http", "headers": headers}
    await Compression(app)(scope, receive, send)
    decoder = httpx.Response(
        200,
        headers={"Content-Encoding": encoding},
        content=b"".join(message.get("body", b"") for message in sent),
    )
    assert decoder.content == b"a" * 5000 + b"b" * 50_000


async def test_event_stream_is_not_compressed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n" * 1000})

    async with client_of(Compression(app)) as client:
        response = await raw(client, "GET", "/", headers={"Accept-Encoding": "gzip, zstd"})
    assert response.content == b"data: 1\n\n" * 1000
