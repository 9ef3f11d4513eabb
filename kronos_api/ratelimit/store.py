"""Where all workers count together, as the limiter sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kronos_api.ratelimit.quotas import Quota


class StoreOut(Exception):
    """The store cannot count now; the message says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A quota's window as the store has it: `total` granted by all, seconds `left`."""

    window: int
    total: int
    left: float


@dataclass(slots=True)
class Tally:
    """What this worker knows of one caller's current window under one quota.

    mine: forecasts that this worker granted. returned: those of them that it gave back. heard:
    those of all workers that count, when the store was last heard of. since: those that this worker
    granted alone after that, less those that it gave back. asking: calls under way, which will note
    here what they are told.
    """

    quota: Quota
    window: int = -1
    mine: int = 0
    returned: int = 0
    heard: int = 0
    since: int = 0
    asking: int = 0

    def turn(self, window: int) -> None:
        """Forget what belongs to another window."""
        if window != self.window:
            self.window, self.mine, self.returned, self.heard, self.since = window, 0, 0, 0, 0

    def grant(self, cost: int) -> None:
        """Count what is granted alone."""
        self.mine += cost
        self.since += cost

    def give_back(self, cost: int) -> None:
        """Count no longer what was granted in this window; the next call tells the store."""
        self.returned += cost
        self.since -= cost

    def hear(self, reading: Reading, granted: int) -> None:
        """Note what the store told, which has granted so many."""
        if reading.window != self.window - 1:  # else another call has heard of a later one
            self.turn(reading.window)
            self.mine += granted
            self.heard = max(self.heard + self.since, reading.total)
            self.since = 0


class Store(Protocol):
    """Counts for all workers at once."""

    kind: Literal["redis", "host"]

    async def open(self) -> None:
        """Before the first call; raises `StartupError` for what will not pass by itself."""

    async def check(self) -> None:
        """Raises `StoreOut` while the store cannot be reached."""

    async def count(
        self, caller: str, tallies: Sequence[Tally], cost: int
    ) -> tuple[bool, list[Reading]]:
        """Grant `cost` forecasts under all quotas of `tallies`, or under none.

        Whether they are granted, and each window after that. What this worker granted alone in
        them, and what it gave back, is counted in any case. Atomic over all workers; raises
        `StoreOut`.
        """
        ...

    async def close(self) -> None:
        """After the last call."""
