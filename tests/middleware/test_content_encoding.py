"""Compressed bodies: decoded in bounded pieces, and never beyond the limit."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
import zstandard
from starlette.types import Message, Receive, Scope, Send

from kronos_api.errors import MalformedBody, RequestTooLarge
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.content_encoding import ContentEncoding
from kronos_api.middleware.decoding import MOST_MEMBERS, PIECE, gunzip, unzstd
from tests.web import BATCH, SINGLE, body, encode, serving

LIMIT = 10 * 2**20
CONTENT = encode(body(200))


def packed(content: bytes, level: int = 9) -> bytes:
    """The same bytes whenever it is called, as names of tests must be."""
    return gzip.compress(content, level, mtime=0)


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def streamed(content: bytes) -> bytes:
    """As an encoder writes that does not know the length before."""
    writing = zstandard.ZstdCompressor().compressobj()
    return writing.compress(content) + writing.flush()


def half(compress: Callable[[bytes], bytes]) -> bytes:
    """`CONTENT` in two members or frames."""
    return compress(CONTENT[:1000]) + compress(CONTENT[1000:])


async def post(client: httpx.AsyncClient, content: bytes, encoding: str) -> httpx.Response:
    return await client.post(SINGLE, content=content, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (CONTENT, "identity"),
        (CONTENT, ""),
        (packed(CONTENT), "gzip"),
        (packed(CONTENT), "GZip"),
        (packed(CONTENT), "identity, gzip"),
        (half(packed), "gzip"),
        (zstd(CONTENT), "zstd"),
        (streamed(CONTENT), "zstd"),
        (half(zstd), "zstd"),
        (packed(b"\xef\xbb\xbf" + CONTENT), "gzip"),
    ],
)
async def test_compressed_bodies_are_accepted(content: bytes, encoding: str) -> None:
    async with serving() as client:
        response = await post(client, content, encoding)
    assert response.status_code == 200, response.text


async def test_chunked_compressed_batches_are_accepted() -> None:
    whole = packed(encode({"items": [body(2000), body(3)]}))
    assert len(whole) > PIECE // 4

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 5000):
            yield whole[start : start + 5000]

    async with serving() as client:
        headers = {"Content-Encoding": "gzip"}
        response = await client.post(BATCH, content=pieces(), headers=headers)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("content", "encoding", "code"),
    [
        (CONTENT, "gzip", "MALFORMED_BODY"),
        (CONTENT, "zstd", "MALFORMED_BODY"),
        (packed(CONTENT)[:-1], "gzip", "MALFORMED_BODY"),
        (packed(CONTENT)[:500], "gzip", "MALFORMED_BODY"),
        (packed(CONTENT) + b"more", "gzip", "MALFORMED_BODY"),
        (packed(CONTENT)[:-6] + b"xxxxxx", "gzip", "MALFORMED_BODY"),
        (zlib.compress(CONTENT), "gzip", "MALFORMED_BODY"),
        (b"", "gzip", "MALFORMED_BODY"),
        (packed(b""), "gzip", "MALFORMED_JSON"),
        (packed(b"") * (MOST_MEMBERS + 1), "gzip", "MALFORMED_BODY"),
        (zstd(CONTENT)[:-20], "zstd", "MALFORMED_JSON"),
        (zstd(CONTENT) + b"more", "zstd", "MALFORMED_BODY"),
    ],
)
async def test_damaged_bodies_get_400(content: bytes, encoding: str, code: str) -> None:
    async with serving() as client:
        response = await client.post(
            SINGLE,
            content=content,
            headers={"Content-Encoding": encoding, "Content-Length": str(len(content))},
        )
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize("compress", [packed, zstd, streamed])
async def test_a_bomb_is_refused_at_the_limit(compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b" " * 200_000_000)
    encoding = "gzip" if compress is packed else "zstd"
    async with serving(max_request_size_mb=1, body_memory_mb=2) as client:
        tracemalloc.start()
        response = await post(client, bomb, encoding)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (response.status_code, response.json()["error"]["code"]) == (413, "REQUEST_TOO_LARGE")
    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        (gunzip(packed(b" " * 10_000_000), LIMIT), b" " * 10_000_000),
        (unzstd(zstd(b" " * 10_000_000), LIMIT), b" " * 10_000_000),
        (gunzip(packed(CONTENT, 0) * 100, LIMIT), CONTENT * 100),
    ],
)
def test_pieces_are_small_and_give_the_whole(pieces: Iterator[bytes], content: bytes) -> None:
    found = list(pieces)
    assert max(map(len, found)) <= PIECE
    assert b"".join(found) == content


def test_a_zstd_window_is_bounded() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=27, write_content_size=False
    )
    writing = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    sent = writing.compress(b"{}") + writing.flush()
    with pytest.raises(MalformedBody, match="a window of more than 10485760 bytes"):
        list(unzstd(sent, LIMIT))


async def test_content_beyond_the_compressed_size_is_counted() -> None:
    sent = packed(b" " * 300_000)
    memory = BodyMemory(2**20)
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        with pytest.raises(RequestTooLarge):
            while True:
                await receive()
                seen.append(memory.held)

    async def receive() -> Message:
        return {"type": "http.request", "body": sent, "more_body": False}

    async def ignore(message: Message) -> None:
        del message

    scope: Scope = {"type": "http", "headers": [(b"content-encoding", b"gzip")]}
    await ContentEncoding(app, limit=200_000, memory=memory)(scope, receive, ignore)
    assert seen == [PIECE - len(sent)]
    assert memory.held == 0
