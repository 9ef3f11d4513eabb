"""The scheduler: which forecasts wait, which run, and when each ends.

Pure bookkeeping without threads or tensors. Forecasts start first come, first served, unless the
start policy lets one overtake. A forecast that cannot end in time at the measured pace is refused,
before or while it runs. Every accepted ticket ends exactly once, with a sequence or an error.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Several
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Final

from kronos_api.batching.completion_rate import CompletionRate
from kronos_api.batching.progress import note_step
from kronos_api.batching.start_policy import LOOK_AHEAD, StartPolicy
from kronos_api.batching.ticket import Ticket
from kronos_api.engine.pace import Pace
from kronos_api.errors import KronosError, PredictionTimeout, QueueFull, WorkTooLarge

if TYPE_CHECKING:
    from kronos_api.engine.engine import Engine

TOO_LARGE: Final = 1.5
"""A forecast is refused if its estimate exceeds KRONOS_INFERENCE_TIMEOUT so many times."""
STREAMS_A_STEP: Final = 4
"""Streams that get their candles after one step, so that many of them do not hold up the rest; each
of more streams gets several candles at a time."""
ESTIMATE_EVERY: Final = 0.5
"""Seconds between two estimates of all forecasts; new ones are estimated at once."""


class Scheduler:
    """The queue and the running forecasts. Belongs to the engine's thread, but for reads.

    max_queue: forecasts that may wait. kv_budget: bytes of keys and values that running forecasts
    may hold together. max_active: forecasts that may run, small ones aside that overtake.
    """

    def __init__(self, max_queue: int, kv_budget: int, max_active: int) -> None:
        self.max_queue = max_queue
        self.kv_budget = kv_budget
        self.max_active = max_active
        self.waiting: deque[Ticket] = deque()
        self.active: list[Ticket] = []
        self._rate = CompletionRate()
        self._estimated_at = -math.inf

    def check_capacity(self, count: int, arriving: int) -> None:
        """Check that `count` tickets fit into the queue behind `arriving` others. Thread-safe.

        While none waits, any number is accepted at once, so that a batch longer than the queue can
        be served.

        Raises:
            QueueFull: they do not fit; `retry_after` estimates when they will.
        """
        waiting = len(self.waiting) + arriving
        if waiting + count <= self.max_queue or not waiting:
            return
        seconds = self.retry_after()
        batch = f", {count} more do not fit" if count > 1 else ""
        raise QueueFull(
            f"Queue full: {waiting} of {self.max_queue} forecasts waiting{batch}. Retry in"
            f" {seconds} s, or raise KRONOS_MAX_QUEUE.",
            retry_after=seconds,
        )

    def add(self, tickets: Several[Ticket]) -> None:
        """Put accepted tickets at the end of the queue."""
        self.waiting.extend(tickets)

    def retry_after(self) -> int:
        """Whole seconds until half of the queue has started at the measured rate, from 1 to 60."""
        seconds = len(self.waiting) / 2 / self._rate.per_second
        return max(1, min(60, math.ceil(seconds)))

    def advance(self, engine: Engine, clock: Callable[[], float]) -> None:
        """End overdue and oversized forecasts, start the next, run one step, end the finished."""
        now = clock()
        if self.waiting and not self.active:
            self._rate.resume(self.waiting[0].accepted_at)
        self._end_overdue(now)
        self._end_oversized(engine, now)
        self._admit(engine, now)
        if not self.active:
            return
        try:
            engine.step([ticket.sequence for ticket in self.active if ticket.sequence is not None])
        except Exception as failure:
            failed, self.active = self.active, []
            _fail(failed, failure, clock())
            return
        self._send_candles()
        now = clock()
        note_step(self.active)
        self._collect(now)

    def fail_all(self, failure: Exception, now: float) -> None:
        """End every forecast, waiting or running, with `failure`."""
        tickets = [*self.active, *self.waiting]
        self.active = []
        self.waiting.clear()
        _fail(tickets, failure, now)

    def _end_overdue(self, now: float) -> None:
        """End forecasts that were cancelled or are past a deadline."""
        for ticket in [*self.active, *self.waiting]:
            if ticket.future.cancelled() or now >= _end_by(ticket):
                self._remove(ticket)
                ticket.fail(_timeout(ticket, now), now)

    def _end_oversized(self, engine: Engine, now: float) -> None:
        """End forecasts that cannot end in time at the measured pace."""
        tickets: Iterable[Ticket] = [*self.active, *self.waiting]
        if now - self._estimated_at >= ESTIMATE_EVERY:
            self._estimated_at = now
        else:
            tickets = [ticket for ticket in self.waiting if not ticket.estimated]
        for ticket in tickets:
            if not ticket.estimated:
                ticket.kv_bytes = engine.kv_cache_bytes(ticket.request)
                ticket.counts = engine.phase_counts(ticket.request)
                if ticket.channel is not None:
                    ticket.decoder = engine.candle_decoder(ticket.request)
                    ticket.kv_bytes += ticket.decoder.cache_bytes
                ticket.estimated = True
            seconds = _inference_seconds(ticket, engine.pace, now)
            if seconds > TOO_LARGE * ticket.inference_timeout:
                self._remove(ticket)
                ticket.fail(_too_large(ticket, seconds), now)

    def _remove(self, ticket: Ticket) -> None:
        (self.waiting if ticket.sequence is None else self.active).remove(ticket)

    def _admit(self, engine: Engine, now: float) -> None:
        policy = StartPolicy(engine.pace, self.kv_budget, self.max_active, now)
        while self.waiting:
            ticket = policy.next(list(islice(self.waiting, LOOK_AHEAD + 1)), self.active)
            if ticket is None:
                return
            self.waiting.remove(ticket)
            ticket.started_at = now
            try:
                ticket.sequence = engine.start(ticket.request)
            except Exception as failure:
                ticket.fail(failure, now)
                continue
            ticket.phases.enter(ticket.sequence.status.value, now)
            self.active.append(ticket)

    def _send_candles(self) -> None:
        """Send new candles of the streams that are furthest behind."""
        for ticket in nlargest(STREAMS_A_STEP, self.active, key=lambda one: one.backlog):
            if ticket.backlog:
                ticket.send_candles()

    def _collect(self, now: float) -> None:
        """End the tickets of finished sequences."""
        finished = [t for t in self.active if t.sequence is not None and t.sequence.ended]
        self.active = [t for t in self.active if t.sequence is None or not t.sequence.ended]
        self._rate.note(len(finished), now)
        for ticket in finished:
            ticket.finish(now)


def _fail(tickets: Iterable[Ticket], failure: Exception, now: float) -> None:
    for ticket in tickets:
        ticket.fail(failure, now)


def _end_by(ticket: Ticket) -> float:
    if ticket.sequence is None:
        return ticket.deadline
    return min(ticket.deadline, ticket.started_at + ticket.inference_timeout)


def _timeout(ticket: Ticket, now: float) -> KronosError:
    if now < ticket.deadline:
        return PredictionTimeout(
            f"Inference exceeded KRONOS_INFERENCE_TIMEOUT ({ticket.inference_timeout:g} s) and was"
            " cancelled. Ask for fewer sample paths or steps."
        )
    return deadline_passed(ticket, now)


def deadline_passed(ticket: Ticket, now: float) -> PredictionTimeout:
    """The error of a forecast whose request reached KRONOS_REQUEST_TIMEOUT."""
    if ticket.sequence is None:
        spent = f"{now - ticket.accepted_at:.1f} s in the queue"
        remedy = "Retry later, or raise KRONOS_REQUEST_TIMEOUT."
    else:
        spent = f"{ticket.queue_seconds:.1f} s in the queue and {now - ticket.started_at:.1f} s"
        spent += " of inference"
        remedy = "Ask for fewer sample paths or steps, or raise KRONOS_REQUEST_TIMEOUT."
    return PredictionTimeout(
        f"The request exceeded KRONOS_REQUEST_TIMEOUT after {spent}, and was cancelled. {remedy}"
    )


def _inference_seconds(ticket: Ticket, pace: Pace, now: float) -> float:
    """Estimated seconds of inference, with those spent so far.

    Those are measured, so a nearly finished forecast survives a machine that became busy.
    """
    if ticket.sequence is None:
        return pace.seconds(ticket.counts)
    return now - ticket.started_at + pace.seconds(ticket.sequence.remaining)


def _too_large(ticket: Ticket, seconds: float) -> WorkTooLarge:
    return WorkTooLarge(
        f"Forecast too large: {ticket.counts.rows} sample paths of {ticket.counts.steps} steps take"
        f" about {seconds:.0f} s at the measured pace, and KRONOS_INFERENCE_TIMEOUT allows"
        f" {ticket.inference_timeout:g} s. Ask for fewer sample paths or steps, or raise"
        " KRONOS_INFERENCE_TIMEOUT."
    )
