"""Bounds the open connections of one peer, so that none exhausts the file descriptors."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Final

import structlog

from kronos_api.security.peers import Peers
from kronos_api.security.whitelist import parse_address
from kronos_api.telemetry.metrics import metrics

LOG_EVERY: Final = 10.0
"""Seconds between two log lines about refused connections."""

log = structlog.stdlib.get_logger(__name__)


def peer_key(peer: str) -> str:
    """The IPv4 address of `peer`, or its IPv6 /64 network, which one host can use as a whole."""
    address = parse_address(peer)
    if address is None or address.version == 4 or address.is_loopback:
        return peer if address is None else str(address)
    return str(IPv6Network((address, 64), strict=False))


class ConnectionLimit:
    """Counts the open connections of each peer of this process.

    Its limit is `listed` if the whitelist or the list of trusted proxies names it, else `unlisted`.
    """

    def __init__(
        self, unlisted: float, listed: float, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.unlisted = unlisted
        self.listed = listed
        self._now = now
        self._open: Counter[str] = Counter()
        self._checks: set[asyncio.Task[None]] = set()
        self._closed = 0
        self._log_at = -float("inf")

    def opened(self, peer: str, peers: Peers | None, close: Callable[[], None]) -> None:
        """Count a connection, and `close` it if it exceeds the limit of `peer`.

        `peers` tells whether a peer is listed; without it, all are. That may take a DNS query: the
        connection serves meanwhile, and is closed if the peer turns out to be unlisted.
        """
        key = peer_key(peer)
        self._open[key] += 1
        metrics.connections.inc()
        if self._open[key] > self.listed:
            self._exceeded(peer, listed=True)
            close()
        elif self._open[key] > self.unlisted and peers is not None:
            check = asyncio.get_running_loop().create_task(self._check(peer, peers, close))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    def ended(self, peer: str) -> None:
        """A counted connection has ended."""
        key = peer_key(peer)
        self._open[key] -= 1
        metrics.connections.dec()
        if self._open[key] <= 0:
            del self._open[key]

    async def _check(self, peer: str, peers: Peers, close: Callable[[], None]) -> None:
        if not await peers.is_listed(peer):
            self._exceeded(peer, listed=False)
            close()

    def _exceeded(self, peer: str, *, listed: bool) -> None:
        """Count a connection closed for the limit; log every `LOG_EVERY` seconds."""
        metrics.connections_refused.labels("listed" if listed else "unlisted").inc()
        self._closed += 1
        now = self._now()
        if now < self._log_at:
            return
        log.warning(
            "connection_limit_reached",
            peer=peer,
            limit=self.listed if listed else self.unlisted,
            setting=f"KRONOS_CONNECTIONS_PER_{'LISTED_' if listed else ''}PEER",
            closed=self._closed,
        )
        self._closed, self._log_at = 0, now + LOG_EVERY
