"""Admission: which waiting forecast starts next.

A forecast starts if its keys and values fit into the KV budget, if fewer than `max_active` run and
if it makes no running forecast late. Large forecasts that would share their decode steps and all be
late run one after the other.

To avoid head-of-line blocking, a small forecast may overtake a larger one that waits for running
forecasts to end. A convoy of large ones leaves room for it: they fill neither the last part of the
KV budget nor all of `max_active`. To avoid starvation, forecasts that overtook do not count as
running when that is decided: as soon as the larger one waits for them alone, none overtakes it any
more.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Final

from kronos_api.batching.ticket import Ticket
from kronos_api.engine.pace import Pace

SMALL: Final = 4
"""A forecast may overtake one that needs at least so many times its KV cache and candles."""
RESERVE: Final = 8
"""One part in so many of the KV budget, and as much of `max_active` again, is for small forecasts:
those that overtake and, of the KV budget, any that needs at most a quarter of that part."""
SHORT: Final = 0.1
"""Share of KRONOS_INFERENCE_TIMEOUT below which a forecast starts without an estimate of delays."""
HEADROOM: Final = 0.7
"""Share of its time in which a forecast must end by the estimate: later ones will slow it down."""
LOOK_AHEAD: Final = 64
"""Waiting forecasts behind the first that are considered for overtaking."""


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """Decides at one moment, `now`, by the measured `pace` and the KV budget in bytes."""

    pace: Pace
    kv_budget: int
    max_active: int
    now: float

    def next(self, waiting: Several[Ticket], active: Several[Ticket]) -> Ticket | None:
        """The ticket of `waiting` that starts now beside `active`; None if all have to wait."""
        head = waiting[0]
        if self._fits(head, active):
            return head
        if self._fits(head, [ticket for ticket in active if not ticket.overtook]):
            return None
        for ticket in waiting[1 : LOOK_AHEAD + 1]:
            if _may_overtake(ticket, head) and self._has_capacity(ticket, active, overtakes=True):
                ticket.overtook = True
                return ticket
        return None

    def _fits(self, ticket: Ticket, active: Several[Ticket]) -> bool:
        return self._has_capacity(ticket, active) and self._in_time(ticket, active)

    def _has_capacity(
        self, ticket: Ticket, active: Several[Ticket], *, overtakes: bool = False
    ) -> bool:
        """Whether one more may run; a forecast larger than the whole KV budget runs alone."""
        most, budget = self.max_active, self.kv_budget
        reserved = budget // RESERVE
        if overtakes:
            most += most // RESERVE
        elif SMALL * ticket.kv_bytes > reserved:
            budget -= reserved
        used = sum(other.kv_bytes for other in active)
        return not active or (len(active) < most and used + ticket.kv_bytes <= budget)

    def _in_time(self, ticket: Ticket, active: Several[Ticket]) -> bool:
        """Whether `ticket` ends in time, and so do all of `active` that would without it.

        Running forecasts of `SMALL` times its candles are left out: it never waits for those.
        """
        timeout = ticket.inference_timeout
        counted = [other.counts.candles < SMALL * ticket.counts.candles for other in active]
        if not any(counted) or self.pace.ends([ticket.counts])[0] <= SHORT * timeout:
            return True
        running = [other.sequence.remaining for other in active if other.sequence is not None]
        ends_without = self.pace.ends(running)
        *ends_with, own_end = self.pace.ends([*running, ticket.counts])
        if own_end > HEADROOM * min(timeout, ticket.deadline - self.now):
            return False
        for other, counts, without, end in zip(
            active, counted, ends_without, ends_with, strict=True
        ):
            left = min(other.deadline, other.started_at + other.inference_timeout) - self.now
            if counts and without <= left and end > HEADROOM * left:
                return False
        return True


def _may_overtake(ticket: Ticket, head: Ticket) -> bool:
    """Whether `ticket` is small compared with `head`."""
    return (
        SMALL * ticket.kv_bytes <= head.kv_bytes
        and SMALL * ticket.counts.candles <= head.counts.candles
    )
