"""Malformed HTTP thrown at a real service: every worker outlives it."""

from __future__ import annotations

import gzip
import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.processes import Service, services
from tests.web import BATCH, SINGLE, body, encode

pytestmark = pytest.mark.process

GOOD = encode(body(4, horizon=1))
ROUNDS = 3
PATIENCE = 3.0
"""Seconds to wait for an answer."""
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")


TYPE = "Content-Type: application/json"


def post(*headers: str, path: str = SINGLE, content: bytes = b"") -> bytes:
    """A request with just these headers beside Host."""
    lines = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", TYPE, *headers])
    return lines.encode("latin-1") + b"\r\n\r\n" + content


def sized(content: bytes, *headers: str, path: str = SINGLE) -> bytes:
    return post(f"Content-Length: {len(content)}", *headers, path=path, content=content)


def chunked(*chunks: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", content=b"".join(chunks))


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


BOMB = gzip.compress(b" " * 50_000_000)
CASES: dict[str, bytes] = {
    # conflicting lengths
    "two lengths": post("Content-Length: 5", "Content-Length: 6", content=b"hello!"),
    "list of lengths": post("Content-Length: 5, 6", content=b"hello!"),
    "negative length": post("Content-Length: -1"),
    "signed length": post("Content-Length: +2", content=b"{}"),
    "length in hexadecimal": post("Content-Length: 0x2", content=b"{}"),
    "length in other digits": post("Content-Length: \xb2", content=b"{}"),
    "endless length": post("Content-Length: " + "9" * 4000),
    "length and chunks": post(
        "Content-Length: 2", "Transfer-Encoding: chunked", content=chunk(GOOD) + b"0\r\n\r\n"
    ),
    "chunks and length": post(
        "Transfer-Encoding: chunked", "Content-Length: 9999", content=b"0\r\n\r\n"
    ),
    "unknown encoding": post("Transfer-Encoding: gzip, chunked", content=b"0\r\n\r\n"),
    "chunked twice": post("Transfer-Encoding: chunked, chunked", content=b"0\r\n\r\n"),
    "smuggled": sized(b"", "Transfer-Encoding : chunked") + chunk(b"x"),
    # cut and bad chunks
    "cut chunk": chunked(b"ff\r\n{"),
    "cut size": chunked(b"f"),
    "size of no number": chunked(b"zz\r\n{}\r\n0\r\n\r\n"),
    "negative size": chunked(b"-1\r\n\r\n"),
    "endless size": chunked(b"f" * 1000 + b"\r\n"),
    "chunk without its end": chunked(b"2\r\n{}0\r\n\r\n"),
    "chunk extension": chunked(b"2;" + b"x" * 60_000 + b"\r\n{}\r\n0\r\n\r\n"),
    "large trailers": chunked(chunk(GOOD), b"0\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
    "many small chunks": chunked(chunk(b" ") * 20_000, b"0\r\n\r\n"),
    "cut body": post("Content-Length: 9999", content=b"{"),
    # headers
    "header of 64 KB": sized(GOOD, "X-Large: " + "x" * 65_536),
    "headers of 64 KB": sized(GOOD, *(f"X-{n}: {'x' * 60}" for n in range(1000))),
    "path of 64 KB": sized(GOOD, path="/" + "x" * 65_536),
    "query of 64 KB": sized(GOOD, path=SINGLE + "?" + "x" * 65_536),
    "request id of 8 KB": sized(GOOD, "X-Request-ID: " + "x" * 8000),
    "no host": b"POST %s HTTP/1.1\r\n\r\n" % SINGLE.encode(),
    "two hosts": sized(GOOD, "Host: y"),
    "folded header": sized(GOOD, "X: a\r\n b"),
    "header without a colon": sized(GOOD, "X"),
    "header without a name": sized(GOOD, ": x"),
    "null in a header": sized(GOOD, "X: a\x00b"),
    "bare carriage return": sized(GOOD, "X: a\rb"),
    "bare line feeds": b"POST / HTTP/1.1\nHost: x\n\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "a long line": b"A" * 200_000,
    "nothing but line ends": b"\r\n" * 10_000,
    "upgrade": sized(GOOD, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),
    "upgrade to HTTP/2": sized(GOOD, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    "whole address": sized(GOOD, path="http://[::1"),
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    # invalid UTF-8
    "UTF-8 in a header": sized(GOOD, "X: \xff\xfe", "X-Request-ID: \xff", "traceparent: \xff"),
    "UTF-8 in a name": sized(GOOD, "X\xff: a"),
    "UTF-8 in the path": sized(GOOD, path="/v1/predict/\xff\xfe"),
    "UTF-8 escaped in the path": sized(GOOD, path="/v1/predict/%ff%c0%af%00"),
    "UTF-8 in the query": sized(GOOD, path=SINGLE + "?%ff=\xff"),
    "UTF-8 in the method": b"\xff\xfe / HTTP/1.1\r\nHost: x\r\n\r\n",
    "UTF-8 in the body": sized(b'{"series_id": "\xff\xfe"}'),
    "UTF-16 in the body": sized(GOOD.decode().encode("utf-16")),
    # bodies
    "compressed bomb": sized(BOMB, "Content-Encoding: gzip"),
    "compressed bomb in a batch": sized(BOMB, "Content-Encoding: gzip", path=BATCH),
    "compressed bomb by encoding": post("Transfer-Encoding: gzip", content=BOMB),
    "deep arrays": sized(b"[" * 200_000),
    "deep objects": sized(b'{"a":' * 100_000),
    "deep items": sized(b'{"items": [' + b"[" * 200_000, path=BATCH),
    "long number": sized(b'{"horizon": ' + b"9" * 1_000_000 + b"}"),
    "waits for a word": post("Content-Length: 2", "Expect: 100-continue"),
    # several at once
    "good, then bad": sized(GOOD) + b"\x00\x01\x02\r\n\r\n",
    "many at once": sized(b"{") * 200,
}
MAY_SUCCEED = {
    "bare line feeds",
    "folded header",
    "good, then bad",
    "HTTP/9.9",
    "large trailers",
    "request id of 8 KB",
    "two hosts",
    "upgrade",
    "upgrade to HTTP/2",
    "UTF-8 in a header",
    "UTF-8 in the query",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("malformed")
    with services(folder, 1, 2, RATE_LIMIT_PER_MINUTE="1000000") as (running,):
        yield running


def throw(service: Service, sent: bytes, patience: float = PATIENCE) -> bytes:
    """What comes back until the service closes, or until it has nothing more to say."""
    received = b""
    with socket.create_connection(("127.0.0.1", service.port), patience) as link:
        with suppress(OSError):  # it may close before all is sent
            link.sendall(sent)
        with suppress(OSError):
            while piece := link.recv(65_536):
                received += piece
                link.settimeout(patience / 10)
    return received


@pytest.mark.parametrize("name", CASES)
def test_each_is_refused_or_closed(service: Service, name: str) -> None:
    workers = service.workers()
    statuses = [int(status) for status in ANSWER.findall(throw(service, CASES[name]))]
    good = {200} if name in MAY_SUCCEED else {100} if name == "waits for a word" else set()
    assert all(400 <= status < 500 or status in good for status in statuses), statuses
    assert service.workers() == workers
    assert service.get("/health") == {"status": "ok"}


def test_concurrent_malformed_requests_leave_the_workers_alive(service: Service) -> None:
    workers = service.workers()
    assert len(workers) == 2
    chosen = random.Random(7)
    thrown = list(CASES.values()) * ROUNDS
    # and requests with bytes changed at random
    for _ in range(300):
        damaged = bytearray(sized(GOOD, "X: y") if chosen.random() < 0.5 else chunked(chunk(GOOD)))
        for _ in range(chosen.randint(1, 5)):
            damaged[chosen.randrange(len(damaged) // 2)] = chosen.randrange(256)
        thrown.append(bytes(damaged))
    chosen.shuffle(thrown)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda sent: throw(service, sent), thrown))
    statuses = {int(status) for answer in answers for status in ANSWER.findall(answer)}
    assert statuses <= {100, 200, *range(400, 500), 503}, statuses
    assert service.workers() == workers
    assert ANSWER.match(throw(service, sized(GOOD, "Connection: close"), 30)[:20])
    assert not service.lines("unhandled_exception")
    assert "Traceback" not in service.log.read_text("utf-8")
