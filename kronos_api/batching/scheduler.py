"""Which forecasts run now, which wait, and which have ended.

Pure bookkeeping: no threads, no torch. Forecasts start first come, first served, while `room` says
that they fit; alone, each of them starts. A forecast that cannot be done in time at the measured
pace is refused, before or while it runs. Every ticket that was accepted ends exactly once, with a
result or an error.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from kronos_api.batching.start_policy import LOOK_AHEAD, Room
from kronos_api.engine.pace import Pace, Work
from kronos_api.errors import (
    InternalError,
    KronosError,
    PredictionTimeout,
    QueueFull,
    WorkTooLarge,
)

TOO_LARGE: Final = 1.5
"""A forecast is refused if it takes so many times KRONOS_INFERENCE_TIMEOUT at the measured pace."""
JUDGE_EVERY: Final = 0.5
"""Seconds after which all forecasts are judged by the pace again; new ones are judged at once."""

Job = TypeVar("Job")
Job_contra = TypeVar("Job_contra", contravariant=True)
Run = TypeVar("Run", bound="RunState")


class RunState(Protocol):
    """A forecast inside the engine, as far as scheduling cares."""

    @property
    def left(self) -> Work:
        """What is left to do."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        ...

    @property
    def failure(self) -> Exception | None:
        """Why it ended without a result, if it did."""
        ...

    def release(self) -> None:
        """Let go of memory; the forecast is no longer wanted."""
        ...


class Runner(Protocol[Job_contra, Run]):
    """The engine, as far as scheduling cares."""

    @property
    def pace(self) -> Pace:
        """How long work takes."""
        ...

    def memory_bytes(self, job: Job_contra) -> int:
        """Bytes that `job` may hold at most."""
        ...

    def work(self, job: Job_contra) -> Work:
        """All that is to do for `job`."""
        ...

    def start(self, job: Job_contra) -> Run:
        """Take up `job`."""
        ...

    def step(self, sequences: Sequence[Run]) -> None:
        """Advance all of them."""
        ...


class Ticket(Generic[Job, Run]):
    """One accepted forecast. Times are seconds of the scheduler's clock.

    `work` and `bytes` are what it needs in all, once `judged` by the scheduler. `passed`: it
    started before a larger one that came earlier. `done` is called exactly once, with the ended run
    or with an error.
    """

    def __init__(
        self,
        job: Job,
        deadline: float,
        inference_timeout: float,
        done: Callable[[Ticket[Job, Run], Run | Exception], None],
    ) -> None:
        self.job = job
        self.deadline = deadline
        self.inference_timeout = inference_timeout
        self.cancelled = False
        self.started_at = 0.0
        self.ended_at = 0.0
        self.run: Run | None = None
        self.bytes = 0
        self.work = Work(0, 0)
        self.judged = False
        self.passed = False
        self._done = done

    def end(self, outcome: Run | Exception, now: float) -> None:
        """Report the outcome and let go of the engine's memory."""
        self.ended_at = now
        if self.run is not None:
            self.run.release()
        self._done(self, outcome)


class Scheduler(Generic[Job, Run]):
    """Holds the queue and what is under way."""

    def __init__(self, max_queue: int, budget_bytes: int, max_active: int) -> None:
        self.max_queue = max_queue
        self.budget_bytes = budget_bytes
        self.max_active = max_active
        self.waiting: deque[Ticket[Job, Run]] = deque()
        self.active: list[Ticket[Job, Run]] = []
        self._seconds = 1.0
        self._judged_at = -math.inf

    def check_room(self, count: int, arriving: int) -> None:
        """Check that `count` tickets may be added after `arriving` others; any thread may ask.

        Raises:
            QueueFull: there is no room for all of them; `retry_after` estimates when there is.
        """
        waiting = len(self.waiting) + arriving
        # An idle service accepts one request of any size; later ones have to wait for it.
        if waiting + count > self.max_queue and (waiting or self.active):
            raise QueueFull(
                f"{waiting} forecasts wait already, and {self.max_queue} may.",
                retry_after=self.retry_after(),
            )

    def add(self, tickets: Sequence[Ticket[Job, Run]]) -> None:
        """Put accepted tickets at the end of the queue."""
        self.waiting.extend(tickets)

    def retry_after(self) -> int:
        """Whole seconds until half of the queue should be gone, from 1 to 60."""
        rounds = (len(self.waiting) / 2 + len(self.active)) / max(1, len(self.active))
        return max(1, min(60, math.ceil(rounds * self._seconds)))

    def advance(self, runner: Runner[Job, Run], clock: Callable[[], float]) -> None:
        """Drop what is not wanted or too large, start what fits, run one step, end what ended."""
        now = clock()
        self._drop(now)
        self._judge(runner, now)
        self._admit(runner, now)
        if not self.active:
            return
        runs = [ticket.run for ticket in self.active if ticket.run is not None]
        try:
            runner.step(runs)
        except Exception as failure:
            self._end_all(self.active, failure, clock())
            self.active = []
            return
        self._collect(clock())

    def fail_all(self, failure: Exception, now: float) -> None:
        """End everything, waiting or under way."""
        tickets = [*self.active, *self.waiting]
        self.active = []
        self.waiting.clear()
        self._end_all(tickets, failure, now)

    def _drop(self, now: float) -> None:
        """End what was cancelled or is past its deadline."""
        self._end_if(lambda ticket: _overdue(ticket, now), [*self.active, *self.waiting], now)

    def _judge(self, runner: Runner[Job, Run], now: float) -> None:
        """End what the measured pace cannot bring to its end in time."""
        tickets: Iterable[Ticket[Job, Run]] = [*self.active, *self.waiting]
        if now - self._judged_at >= JUDGE_EVERY:
            self._judged_at = now
        else:
            tickets = [ticket for ticket in self.waiting if not ticket.judged]
        for ticket in tickets:
            if not ticket.judged:
                ticket.bytes, ticket.work = runner.memory_bytes(ticket.job), runner.work(ticket.job)
                ticket.judged = True
        self._end_if(lambda ticket: _too_large(ticket, runner.pace, now), tickets, now)

    def _end_if(
        self,
        judge: Callable[[Ticket[Job, Run]], KronosError | None],
        tickets: Iterable[Ticket[Job, Run]],
        now: float,
    ) -> None:
        for ticket in tickets:
            if (error := judge(ticket)) is None:
                continue
            if ticket.run is None:
                self.waiting.remove(ticket)
            else:
                self.active.remove(ticket)
            ticket.end(error, now)

    def _admit(self, runner: Runner[Job, Run], now: float) -> None:
        room = Room(runner.pace, self.budget_bytes, now)
        while self.waiting and len(self.active) < self.max_active:
            ahead = list(islice(self.waiting, LOOK_AHEAD + 1))
            ticket: Ticket[Job, Run] | None = room.next(ahead, self.active)
            if ticket is None:
                return
            self.waiting.remove(ticket)
            ticket.started_at = now
            try:
                ticket.run = runner.start(ticket.job)
            except Exception as failure:
                ticket.end(failure, now)
                continue
            self.active.append(ticket)

    def _collect(self, now: float) -> None:
        ended = [t for t in self.active if t.run is not None and t.run.ended]
        self.active = [t for t in self.active if t.run is None or not t.run.ended]
        for ticket in ended:
            assert ticket.run is not None
            seconds = now - ticket.started_at
            self._seconds += 0.2 * (seconds - self._seconds)
            ticket.end(ticket.run.failure or ticket.run, now)

    @staticmethod
    def _end_all(tickets: Sequence[Ticket[Job, Run]], failure: Exception, now: float) -> None:
        for ticket in tickets:
            ticket.end(failure, now)


def _overdue(ticket: Ticket[Job, Run], now: float) -> KronosError | None:
    if ticket.cancelled:
        return InternalError()
    if now >= ticket.deadline:
        return PredictionTimeout("The request's deadline passed; decoding has stopped.")
    if ticket.run is not None and now >= ticket.started_at + ticket.inference_timeout:
        return PredictionTimeout(
            f"Inference exceeded KRONOS_INFERENCE_TIMEOUT ({ticket.inference_timeout:g} s) and was"
            " cancelled. Ask for fewer sample paths or steps."
        )
    return None


def _too_large(ticket: Ticket[Job, Run], pace: Pace, now: float) -> KronosError | None:
    work, limit = ticket.work, ticket.inference_timeout
    if ticket.run is None:
        seconds = pace.seconds(work)
    else:  # one that is nearly done is not ended for a machine that became busy
        seconds = now - ticket.started_at + pace.seconds(ticket.run.left)
    if seconds <= TOO_LARGE * limit:
        return None
    return WorkTooLarge(
        f"{work.rows} sample paths of {work.steps} steps take about {seconds:.0f} s here, and"
        f" KRONOS_INFERENCE_TIMEOUT allows {limit:g} s. Ask for fewer sample paths or steps, or"
        " raise KRONOS_INFERENCE_TIMEOUT."
    )
