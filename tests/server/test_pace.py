"""Requests without an identified caller are read at a bounded pace, unless their peer is listed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.server import pace
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.pace import BURST, LONGEST, PEERS_KEPT, RATE, TRUST, Pace
from kronos_api.server.uvicorn_config import options
from kronos_api.telemetry.metrics import metrics
from tests import web
from tests.web import body, encode, predictor_of

LISTED, UNLISTED = "127.0.0.1", "127.0.0.2"
HEALTH = b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
MALFORMED = b"no request\r\n\r\n"
CONTENT = encode(body())
FORECAST = (
    b"POST /v1/predict/single HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(CONTENT), CONTENT)
)
Address = tuple[str, int]


@asynccontextmanager
async def service() -> AsyncIterator[Address]:
    """The address of a service that lists 127.0.0.1 alone."""
    settings = Settings(container_whitelist=LISTED, rate_limit_enabled=False)
    app = create_app(settings, predictor=predictor_of())
    made = options(Deadlines(60, 60, 60, 60), shutdown_timeout=5)
    async with web.listening(app, **made) as address:
        yield address


def paced() -> float:
    return metrics.registry.get_sample_value("kronos_paced_requests_total") or 0


def statuses(address: Address, peer: str, request: bytes, count: int, links: int) -> list[bytes]:
    """The statuses of so many requests on each of `links` connections, one after the other."""
    found = []
    for _ in range(links):
        with socket.create_connection(address, 30, (peer, 0)) as link:
            link.sendall(request * count)
            reader = link.makefile("rb")
            for _ in range(count):
                found.append(reader.readline().split()[1])
                length = 0
                while (line := reader.readline()) != b"\r\n":
                    name, _, value = line.partition(b": ")
                    length = int(value) if name.lower() == b"content-length" else length
                reader.read(length)
    return found


@pytest.mark.parametrize(
    ("request_", "status", "count", "links"),
    [
        pytest.param(MALFORMED, b"400", 1, BURST + 3, id="malformed"),
        pytest.param(FORECAST, b"403", 1, BURST + 3, id="refused"),
        pytest.param(HEALTH, b"200", BURST + 3, 1, id="pipelined health checks"),
        pytest.param(HEALTH, b"200", 1, BURST + 3, id="health checks"),
    ],
)
async def test_requests_of_an_unlisted_peer_wait_after_a_burst(
    monkeypatch: pytest.MonkeyPatch, request_: bytes, status: bytes, count: int, links: int
) -> None:
    monkeypatch.setattr(pace, "RATE", 1.0)  # however slow the machine
    monkeypatch.setattr(pace, "LONGEST", 0.05)
    before = paced()
    async with service() as address:
        found = await asyncio.to_thread(statuses, address, UNLISTED, request_, count, links)
        assert found == [status] * (BURST + 3)
        waited = paced() - before
        assert waited >= 2
        listed = await asyncio.to_thread(statuses, address, LISTED, HEALTH, 1, 1)
        assert listed == [b"200"]
    assert paced() - before == waited


@pytest.mark.parametrize("request_", [MALFORMED, HEALTH])
async def test_listed_peers_do_not_wait(request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "RATE", 1.0)
    monkeypatch.setattr(pace, "LONGEST", 3600.0)
    before = paced()
    async with service() as address:
        await asyncio.to_thread(statuses, address, LISTED, request_, 1, 2 * BURST)
    assert paced() == before


async def test_forecasts_of_identified_callers_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[tuple[str, bool]] = []

    def count(_self: Pace, peer: str, *, identified: bool) -> None:
        counted.append((peer, identified))

    monkeypatch.setattr(Pace, "count", count)
    async with service() as address:
        assert await asyncio.to_thread(statuses, address, LISTED, FORECAST, 2, 1) == [b"200"] * 2
        await asyncio.to_thread(statuses, address, UNLISTED, FORECAST, 1, 1)
        await asyncio.to_thread(statuses, address, LISTED, HEALTH, 1, 1)
    assert counted == [(LISTED, True)] * 2 + [(UNLISTED, False), (LISTED, False)]


def test_a_burst_is_free_and_then_requests_wait_for_the_rate() -> None:
    clock = [100.0]
    kept = Pace(lambda: clock[0])
    for _ in range(BURST):
        kept.count("a", identified=False)
    assert kept.delay("a") == 0
    kept.count("a", identified=False)
    assert kept.delay("a") == pytest.approx(1 / RATE)
    assert kept.delay("b") == 0
    clock[0] += 1 / RATE
    assert kept.delay("a") == pytest.approx(0)
    for _ in range(10_000):
        kept.count("a", identified=False)
    assert kept.delay("a") == pytest.approx(LONGEST)
    clock[0] += LONGEST + BURST / RATE
    for _ in range(BURST):
        kept.count("a", identified=False)
    assert kept.delay("a") == pytest.approx(0)


def test_a_peer_of_identified_callers_does_not_wait() -> None:
    clock = [100.0]
    kept = Pace(lambda: clock[0])
    for _ in range(10_000):
        kept.count("proxy", identified=False)
    assert kept.delay("proxy") > 0
    kept.count("proxy", identified=True)
    assert kept.delay("proxy") == 0
    clock[0] += TRUST
    for _ in range(10_000):
        kept.count("proxy", identified=False)
    assert kept.delay("proxy") > 0


@pytest.mark.parametrize("identified", [True, False])
def test_peers_that_are_quiet_again_take_no_memory(identified: bool) -> None:
    clock = [100.0]
    kept = Pace(lambda: clock[0])
    held = kept._trusted if identified else kept._due
    for number in range(3 * PEERS_KEPT):
        kept.count(f"10.0.{number // 256}.{number % 256}", identified=identified)
    assert len(held) == PEERS_KEPT
    clock[0] += 3600
    kept.count("192.0.2.1", identified=identified)
    assert list(held) == ["192.0.2.1"]
