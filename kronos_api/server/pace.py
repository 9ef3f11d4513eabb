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
PEERS_KEPT: Final = 1024


class Pace:
    """Counts these requests of each peer of this process, and tells how long its next one waits."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # When each peer's requests so far are worked off at `RATE`.
        self._due: dict[str, float] = {}

    def count(self, peer: str) -> None:
        """A request of `peer` has ended without an identified caller."""
        key, now = peer_key(peer), self._now()
        due = max(now, self._due.get(key, now)) + 1 / RATE
        self._due[key] = min(due, now + BURST / RATE + LONGEST)
        if len(self._due) > PEERS_KEPT:
            self._due = {key: due for key, due in self._due.items() if due > now}
            while len(self._due) > PEERS_KEPT:  # of more addresses than that, the oldest are free
                del self._due[next(iter(self._due))]

    def delay(self, peer: str) -> float:
        """Seconds, at most `LONGEST`, until the next request of `peer` may be read."""
        due = self._due.get(peer_key(peer), 0.0)
        return max(0.0, due - self._now() - BURST / RATE)
