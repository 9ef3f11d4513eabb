"""Which waiting forecast may start now: memory, time, and who may pass whom.

A forecast starts if its keys and values fit the budget and if it leaves every running forecast in
time. Large ones that would share their steps and all be late therefore run one after the other.

A small forecast may pass a larger one that has to wait for those before it. Forecasts that passed
do not count when that is judged: as soon as a large forecast waits for them alone, none passes it
any more, so it starts when they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kronos_api.engine.pace import Pace

if TYPE_CHECKING:
    from kronos_api.batching.scheduler import Ticket

SMALL: Final = 4
"""A forecast may pass one that needs at least so many times its memory and candles."""
SHORT: Final = 0.1
"""A forecast that takes no more than this share of its time is not asked whether others suffer."""
HEADROOM: Final = 0.7
"""Share of its time in which a forecast must end by the estimate: others may come, and slow it."""
LOOK_AHEAD: Final = 64
"""Waiting forecasts behind the first that are looked at."""

Tickets = Sequence["Ticket[Any, Any]"]


class Room:
    """Room beside the running forecasts, at one moment."""

    def __init__(self, pace: Pace, budget_bytes: int, now: float) -> None:
        self.pace = pace
        self.budget_bytes = budget_bytes
        self.now = now

    def next(self, waiting: Tickets, active: Tickets) -> Ticket[Any, Any] | None:
        """The forecast of `waiting` that starts now, if any."""
        head = waiting[0]
        if self._fits(head, active):
            return head
        before = [ticket for ticket in active if not ticket.passed]
        if self._fits(head, before):
            return None
        for ticket in waiting[1 : LOOK_AHEAD + 1]:
            if _passes(ticket, head) and self._has_memory(ticket, active):
                ticket.passed = True
                return ticket
        return None

    def _fits(self, ticket: Ticket[Any, Any], active: Tickets) -> bool:
        return self._has_memory(ticket, active) and self._in_time(ticket, active)

    def _has_memory(self, ticket: Ticket[Any, Any], active: Tickets) -> bool:
        used = sum(other.bytes for other in active)
        return not active or used + ticket.bytes <= self.budget_bytes

    def _in_time(self, ticket: Ticket[Any, Any], active: Tickets) -> bool:
        """Whether `ticket`, and all of `active` that would be in time without it, are in time.

        Much larger ones are not asked: a small forecast never waits for them.
        """
        limit = ticket.inference_timeout
        asked = [other.work.candles < SMALL * ticket.work.candles for other in active]
        if not any(asked) or self.pace.ends([ticket.work])[0] <= SHORT * limit:
            return True
        works = [other.run.left for other in active if other.run is not None]
        without = self.pace.ends(works)
        *others, own = self.pace.ends([*works, ticket.work])
        if own > HEADROOM * min(limit, ticket.deadline - self.now):
            return False
        for other, judged, end, later in zip(active, asked, without, others, strict=True):
            left = min(other.deadline, other.started_at + other.inference_timeout) - self.now
            if judged and end <= left and later > HEADROOM * left:
                return False
        return True


def _passes(ticket: Ticket[Any, Any], head: Ticket[Any, Any]) -> bool:
    """Whether `ticket` is small beside `head`."""
    return SMALL * ticket.bytes <= head.bytes and SMALL * ticket.work.candles <= head.work.candles
