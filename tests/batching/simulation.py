"""A scheduler with an engine that only counts, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass, field

import numpy as np

from kronos_api.batching.scheduler import Scheduler
from kronos_api.batching.ticket import Ticket
from kronos_api.engine.engine import Engine
from kronos_api.engine.pace import ENOUGH, Pace, PhaseCounts
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.engine.sequence import Sequence
from tests.fakes import FakeSequence

FOREVER = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Request(ForecastRequest):
    """Needs `bytes` of KV cache; may fail after its last step, or at its start."""

    bytes: int = 1
    fails: bool = False
    fails_to_start: bool = False


def request(
    steps: int, *, bytes: int = 1, rows: int = 1, fails: bool = False, fails_to_start: bool = False
) -> Request:
    """A request of `steps` decode steps with `rows` sample paths."""
    return Request(
        candles=np.ones((1, 6), np.float32),
        history_time_features=np.zeros((1, 5), np.int64),
        future_time_features=np.zeros((steps, 5), np.int64),
        params=SamplingParams(sample_count=rows),
        bytes=bytes,
        fails=fails,
        fails_to_start=fails_to_start,
    )


class CountedTicket(Ticket):
    """Counts how often it ended."""

    ends = 0

    def _end(self, now: float) -> bool:
        self.ends += 1
        return super()._end(now)


@dataclass(slots=True, eq=False)
class CountingEngine(Engine):
    """Counts steps; `broken` makes the next step raise."""

    runs: list[FakeSequence] = field(default_factory=list)
    broken: bool = False
    widest: int = 0
    pace: Pace = field(default_factory=lambda: Pace(lambda: 0.0))

    def kv_cache_bytes(self, request: ForecastRequest) -> int:
        assert isinstance(request, Request)
        return request.bytes

    def phase_counts(self, request: ForecastRequest) -> PhaseCounts:
        return PhaseCounts(request.sample_count, request.horizon)

    def start(self, request: ForecastRequest) -> FakeSequence:
        assert isinstance(request, Request)
        if request.fails_to_start:
            raise ValueError("cannot start")
        self.runs.append(FakeSequence(request, self.phase_counts(request), steps=request.horizon))
        return self.runs[-1]

    def step(self, sequences: Several[Sequence]) -> None:
        self.widest = max(self.widest, len(sequences))
        if self.broken:
            self.broken = False
            raise RuntimeError("engine failure")
        for sequence in sequences:
            assert isinstance(sequence, FakeSequence)
            assert isinstance(sequence.request, Request)
            assert not sequence.ended
            assert not sequence.released
            sequence.remaining.steps -= 1
            if sequence.remaining.steps > 0:
                continue
            if sequence.request.fails:
                sequence.failure = ValueError("own failure")
            else:
                sequence.values = np.zeros((1, 1, 6), np.float32)


class Simulation:
    """A scheduler, its engine, its clock, and every ticket that was accepted."""

    def __init__(self, max_queue: int = 8, kv_budget: int = 10, max_active: int = 4) -> None:
        self.now = 0.0
        self.engine = CountingEngine()
        self.scheduler = Scheduler(max_queue, kv_budget, max_active)
        self.tickets: list[CountedTicket] = []

    def submit(
        self, *requests: Request, seconds: float = FOREVER, inference_timeout: float = FOREVER
    ) -> list[CountedTicket]:
        """Accept `requests`, whose deadline is in `seconds`; raises `QueueFull`."""
        self.scheduler.check_capacity(len(requests), 0)
        tickets = [
            CountedTicket(request, self.now, self.now + seconds, inference_timeout)
            for request in requests
        ]
        self.tickets += tickets
        self.scheduler.add(tickets)
        return tickets

    def advance(self, seconds: float = 0.0) -> None:
        """Move the clock by `seconds` and the scheduler by one step."""
        self.now += seconds
        self.scheduler.advance(self.engine, lambda: self.now)

    def measure(self, *steps: tuple[int, float]) -> None:
        """Let the engine have measured that decode steps of so many rows take so many seconds."""
        for rows, seconds in steps:
            for _ in range(ENOUGH):
                self.engine.pace.note_step(rows, seconds)

    @property
    def started_bytes(self) -> list[int]:
        """KV bytes of the forecasts that started, in their order."""
        return [self.engine.kv_cache_bytes(run.request) for run in self.engine.runs]

    @property
    def started_rows(self) -> list[int]:
        """Sample paths of the forecasts that started, in their order."""
        return [run.request.sample_count for run in self.engine.runs]


def failure(ticket: Ticket) -> BaseException | None:
    """The error of a ticket that ended; None if it ended with a sequence."""
    assert ticket.future.done()
    return ticket.future.exception(0)
