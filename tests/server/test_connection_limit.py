"""The limit of open connections of one peer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
from structlog.testing import capture_logs

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.security.callers import Caller
from kronos_api.security.identity import Identity
from kronos_api.security.peers import Peers
from kronos_api.security.resolver import ResolverUnavailable
from kronos_api.security.whitelist import Whitelist
from kronos_api.server.connection_limit import LOG_EVERY, ConnectionLimit, peer_key
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.uvicorn_config import options
from kronos_api.telemetry.metrics import metrics
from tests import web
from tests.web import predictor_of, until

LISTED, UNLISTED = "127.0.0.1", "127.0.0.2"
GET = b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n"
Address = tuple[str, int]


@asynccontextmanager
async def service(unlisted: float, listed: float) -> AsyncIterator[Address]:
    """The address of a service that lists 127.0.0.1 alone."""
    app = create_app(Settings(container_whitelist=LISTED), predictor=predictor_of())
    deadlines = Deadlines(60, 60, 60, 60)
    made = options(deadlines, shutdown_timeout=5, connections=(unlisted, listed))
    async with web.listening(app, **made) as address:
        yield address


@contextmanager
def connected(address: Address, peer: str, count: int) -> Iterator[list[socket.socket]]:
    """So many idle connections of `peer`."""
    with ExitStack() as links:
        made = [socket.create_connection(address, 30, (peer, 0)) for _ in range(count)]
        for link in made:
            links.enter_context(link)
        yield made


def answer(link: socket.socket) -> bytes:
    """What comes for a request; nothing where the connection is closed."""
    try:
        link.sendall(GET)
        return link.recv(1000)
    except ConnectionError:
        return b""


async def answered(links: list[socket.socket]) -> list[bool]:
    return [bool(await asyncio.to_thread(answer, link)) for link in links]


def closed(peer: str) -> float:
    return (
        metrics.registry.get_sample_value("kronos_connections_refused_total", {"peer": peer}) or 0
    )


async def test_unlisted_peer_keeps_connections_up_to_its_limit() -> None:
    before = closed("unlisted")
    async with service(3, 100) as address:
        with connected(address, UNLISTED, 3) as first, connected(address, UNLISTED, 5) as surplus:
            assert await answered(surplus) == [False] * 5
            assert await answered(first) == [True] * 3
            with connected(address, LISTED, 10) as listed:
                assert await answered(listed) == [True] * 10
    assert closed("unlisted") == before + 5


async def test_ended_connection_no_longer_counts() -> None:
    async with service(1, 100) as address:
        for _ in range(3):
            with connected(address, UNLISTED, 1) as links:
                assert await answered(links) == [True]
            await asyncio.to_thread(_gone, address)


def _gone(address: Address) -> None:
    """Wait until a new connection of the unlisted peer would be taken."""
    while True:
        with connected(address, UNLISTED, 1) as links:
            if answer(links[0]):
                links[0].shutdown(socket.SHUT_WR)
                while links[0].recv(1000):
                    pass
                return


async def test_listed_peer_has_a_limit_too() -> None:
    before = closed("listed")
    async with service(2, 4) as address:
        with connected(address, LISTED, 4) as first, connected(address, LISTED, 2) as surplus:
            assert await answered(surplus) == [False] * 2
            assert await answered(first) == [True] * 4
    assert closed("listed") == before + 2


@pytest.mark.parametrize("known", [True, False])
async def test_peer_that_only_dns_can_name_is_looked_up(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    asked: list[str] = []

    async def is_listed(self: Peers, peer: str) -> bool:
        del self
        asked.append(peer)
        await asyncio.sleep(0)
        return known

    monkeypatch.setattr(Peers, "is_listed", is_listed)
    async with service(2, 100) as address:
        with connected(address, UNLISTED, 4) as links:
            await until(lambda: len(asked) == 2)
            assert await answered(links[2:]) == [known] * 2
    assert asked == [UNLISTED] * 2


class Names(Identity):
    """Identifies every address as one caller, or fails like an unavailable nameserver."""

    def __init__(self, found: Caller | Exception | None) -> None:
        super().__init__(Whitelist())
        self._found = found

    async def identify(self, *_args: object, **_options: object) -> Caller | None:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


A = Caller("web", "web", "web")


@pytest.mark.parametrize(
    ("allowed", "proxies", "listed"),
    [
        (None, Names(None), True),
        (Names(A), Names(None), True),
        (Names(None), Names(A), True),
        (Names(None), Names(None), False),
        (Names(ResolverUnavailable()), Names(None), False),
        (Names(ResolverUnavailable()), Names(A), True),
    ],
)
async def test_peer_is_listed_by_whitelist_or_as_proxy(
    allowed: Identity | None, proxies: Identity, listed: bool
) -> None:
    assert await Peers(allowed, proxies).is_listed("192.0.2.1") is listed
    assert await Peers(allowed, proxies).is_listed("no address") is (allowed is None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("::1", "::2", False),
    ],
)
def test_ipv6_network_is_one_peer(one: str, other: str, same: bool) -> None:
    assert (peer_key(one) == peer_key(other)) is same


def test_refused_connections_are_logged_every_ten_seconds() -> None:
    clock = [100.0]
    limit = ConnectionLimit(1, 2, now=lambda: clock[0])
    closed: list[None] = []
    with capture_logs() as lines:
        for _ in range(7):
            limit.opened(LISTED, None, lambda: closed.append(None))
        clock[0] += LOG_EVERY
        limit.opened(LISTED, None, lambda: closed.append(None))
    assert len(closed) == 6
    assert [(line["event"], line["limit"], line["closed"]) for line in lines] == [
        ("connection_limit_reached", 2, 1),
        ("connection_limit_reached", 2, 5),
    ]
    assert lines[0]["setting"] == "KRONOS_CONNECTIONS_PER_LISTED_PEER"


def test_peers_without_connections_take_no_memory() -> None:
    limit = ConnectionLimit(2, 9)
    for peer in "aba":
        limit.opened(peer, None, lambda: None)
    assert limit._open == {"a": 2, "b": 1}
    for peer in "aab":
        limit.ended(peer)
    assert limit._open == {}
