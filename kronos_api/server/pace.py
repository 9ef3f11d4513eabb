"""Bounds how fast requests without an identified caller are read, so that a flood of them is cheap.

Such requests are refused by the whitelist or by the parser, or ask for a path that is open to all.
Each costs the event loop up to a millisecond, however early it is refused, and a client that is
refused connects again at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kronos_api.server.connection_limit import peer_key

RATE: Final = 20.0
"""Requests a second of one peer."""
BURST: Final = 40
"""Requests of one peer at once."""
LONGEST: Final = 1.0
"""Seconds that a request waits at most; peers that open many connections exceed `RATE`."""
TRUST: Final = 60.0
"""Seconds without waiting for a peer that has sent a request of an identified caller: it may be a
proxy, whose good callers must not wait for the others."""
PEERS_KEPT: Final = 1024


class Pace:
    """Counts these requests of each peer of this process, and tells how long its next one waits."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # When each peer's requests so far are worked off at `RATE`.
        self._due: dict[str, float] = {}
        self._trusted: dict[str, float] = {}

    def count(self, peer: str, *, identified: bool) -> None:
        """A request of `peer` has ended, with or without an identified caller."""
        key, now = peer_key(peer), self._now()
        if identified:
            self._trusted.pop(key, None)
            self._trusted[key] = now + TRUST
            _forget(self._trusted, now)
            return
        due = max(now, self._due.get(key, now)) + 1 / RATE
        self._due[key] = min(due, now + BURST / RATE + LONGEST)
        _forget(self._due, now)

    def delay(self, peer: str) -> float:
        """Seconds, at most `LONGEST`, until the next request of `peer` may be read."""
        key, now = peer_key(peer), self._now()
        if self._trusted.get(key, now) > now:
            return 0.0
        return max(0.0, self._due.get(key, now) - now - BURST / RATE)


def _forget(until: dict[str, float], now: float) -> None:
    """Keep `PEERS_KEPT` peers: those whose time has passed go first, then those added first."""
    if len(until) <= PEERS_KEPT:
        return
    for key in [key for key, end in until.items() if end <= now]:
        del until[key]
    while len(until) > PEERS_KEPT:
        del until[next(iter(until))]
