"""Bounds the connections that one peer keeps open, so that none uses up the descriptors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Final

import structlog

from kronos_api.security.whitelist import parse_address
from kronos_api.telemetry import metrics

LOG_EVERY: Final = 10.0
"""Seconds between two log lines about closed connections."""

log = structlog.stdlib.get_logger(__name__)


def peer_key(peer: str) -> str:
    """One peer: an IPv4 address, or an IPv6 network of 64 bits, whose owner has all of them."""
    address = parse_address(peer)
    if address is None or address.version == 4 or address.is_loopback:
        return peer if address is None else str(address)
    return str(IPv6Network((address, 64), strict=False))


class ConnectionLimit:
    """Counts the open connections of each peer of this process.

    A peer may have `unlisted` connections, and `listed` ones if the whitelist or the list of
    trusted proxies names it.
    """

    def __init__(
        self, unlisted: float, listed: float, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.unlisted = unlisted
        self.listed = listed
        self._now = now
        self._open: Counter[str] = Counter()
        self._closed = 0
        self._log_at = -float("inf")

    def opened(self, peer: str) -> int:
        """Count a connection; returns how many `peer` has with it."""
        key = peer_key(peer)
        self._open[key] += 1
        return self._open[key]

    def ended(self, peer: str) -> None:
        """A connection that was counted is gone."""
        key = peer_key(peer)
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]

    def exceeded(self, peer: str, *, listed: bool) -> None:
        """Count a connection that is closed for the limit, and log it now and then."""
        metrics.CONNECTIONS_REFUSED.labels("listed" if listed else "unlisted").inc()
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
