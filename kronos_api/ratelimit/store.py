"""The store of the counts that all workers share, as the limiter sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kronos_api.ratelimit.quotas import Quota


class StoreUnavailable(Exception):
    """The store does not count at the moment; the message gives the reason, without secrets."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The store's count in a quota's window: `total` granted by all workers, seconds `left`."""

    window: int
    total: int
    left: float


@dataclass(slots=True)
class WindowCounter:
    """This worker's knowledge of one caller's current window under one quota.

    granted: forecasts that this worker granted. returned: those of them that it gave back.
    last_total: the count of all workers at the store's last answer. unreported: forecasts that this
    worker granted locally since then, less those that it gave back. in_flight: calls of the store
    that will update this counter.
    """

    quota: Quota
    window: int = -1
    granted: int = 0
    returned: int = 0
    last_total: int = 0
    unreported: int = 0
    in_flight: int = 0

    def advance(self, window: int) -> None:
        """Start `window`; the counts of any other window are dropped."""
        if window != self.window:
            self.window, self.granted, self.returned = window, 0, 0
            self.last_total, self.unreported = 0, 0

    def grant_locally(self, cost: int) -> None:
        """Count `cost` forecasts that were granted without the store."""
        self.granted += cost
        self.unreported += cost

    def give_back(self, cost: int) -> None:
        """Return `cost` forecasts of this window; the next call reports them to the store."""
        self.returned += cost
        self.unreported -= cost

    def update(self, reading: Reading, granted: int) -> None:
        """Take over the store's answer to a call that was granted `granted` forecasts."""
        if reading.window != self.window - 1:  # else another call has read a later window
            self.advance(reading.window)
            self.granted += granted
            self.last_total = max(self.last_total + self.unreported, reading.total)
            self.unreported = 0


class Store(Protocol):
    """Counts for all workers."""

    kind: Literal["redis", "host"]

    async def open(self) -> None:
        """Before the first call; raises `StartupError` for a fault that lasts."""

    async def check(self) -> None:
        """Raises `StoreUnavailable` while the store cannot be reached."""

    async def count(
        self, caller: str, counters: Sequence[WindowCounter], cost: int
    ) -> tuple[bool, list[Reading]]:
        """Grant `cost` forecasts under the quotas of all `counters`, or under none of them.

        Returns whether they are granted, and each window after that. Forecasts that this worker
        granted locally or gave back are counted in any case. Atomic over all workers.

        Raises:
            StoreUnavailable: nothing was granted.
        """
        ...

    async def close(self) -> None:
        """After the last call."""
