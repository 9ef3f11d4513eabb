"""The scheduler with an engine that only counts: nothing lost, nothing answered twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kronos_api.batching.scheduler import Scheduler, Ticket
from kronos_api.engine.pace import ENOUGH, Pace, Work
from kronos_api.errors import InternalError, PredictionTimeout, QueueFull, WorkTooLarge


@dataclass(frozen=True, slots=True)
class Job:
    """Takes `steps` steps and `bytes` of memory; may fail by itself after them, or at start."""

    steps: int
    bytes: int = 1
    rows: int = 1
    fails: bool = False
    fails_to_start: bool = False


@dataclass(slots=True, eq=False)
class Run:
    job: Job
    left: Work
    ended: bool = False
    failure: Exception | None = None
    released: bool = False

    def release(self) -> None:
        self.released = True


@dataclass(slots=True)
class CountingEngine:
    """Counts steps; `broken` makes the next step raise."""

    runs: list[Run] = field(default_factory=list)
    broken: bool = False
    widest: int = 0
    pace: Pace = field(default_factory=lambda: Pace(lambda: 0.0))

    def memory_bytes(self, job: Job) -> int:
        return job.bytes

    def work(self, job: Job) -> Work:
        return Work(job.rows, job.steps)

    def start(self, job: Job) -> Run:
        if job.fails_to_start:
            raise ValueError("cannot start")
        self.runs.append(Run(job, self.work(job)))
        return self.runs[-1]

    def step(self, sequences: Sequence[Run]) -> None:
        self.widest = max(self.widest, len(sequences))
        if self.broken:
            self.broken = False
            raise RuntimeError("engine failure")
        for run in sequences:
            assert not run.ended
            assert not run.released
            run.left.steps -= 1
            if run.left.steps == 0:
                run.ended = True
                run.failure = ValueError("own failure") if run.job.fails else None


class Desk:
    """A scheduler, its clock and the outcomes of every ticket."""

    def __init__(self, max_queue: int = 8, budget: int = 10, max_active: int = 4) -> None:
        self.now = 0.0
        self.engine = CountingEngine()
        self.scheduler: Scheduler[Job, Run] = Scheduler(max_queue, budget, max_active)
        self.outcomes: dict[Ticket[Job, Run], list[Run | Exception]] = {}

    def submit(self, *jobs: Job, seconds: float = 1e9) -> list[Ticket[Job, Run]]:
        tickets = [Ticket(job, self.now + seconds, 1e9, self._done) for job in jobs]
        self.scheduler.check_room(len(tickets), 0)
        for ticket in tickets:
            self.outcomes[ticket] = []
        self.scheduler.add(tickets)
        return tickets

    def advance(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.scheduler.advance(self.engine, lambda: self.now)

    def outcome(self, ticket: Ticket[Job, Run]) -> Run | Exception:
        (outcome,) = self.outcomes[ticket]
        return outcome

    def _done(self, ticket: Ticket[Job, Run], outcome: Run | Exception) -> None:
        self.outcomes[ticket].append(outcome)


def test_runs_together_and_ends_each_when_it_is_done() -> None:
    desk = Desk()
    short, long = desk.submit(Job(1), Job(3))
    desk.advance()
    assert isinstance(desk.outcome(short), Run)
    assert not desk.outcomes[long]
    desk.advance()
    desk.advance()
    assert isinstance(desk.outcome(long), Run)
    assert desk.engine.widest == 2


def test_room_is_given_in_order_of_arrival() -> None:
    """A request does not pass one of its size that waits for room."""
    desk = Desk(budget=10)
    first, large, other = desk.submit(Job(2, bytes=6), Job(1, bytes=8), Job(1, bytes=3))
    desk.advance()
    assert [run.job.bytes for run in desk.engine.runs] == [6]
    for _ in range(3):
        desk.advance()
    assert [run.job.bytes for run in desk.engine.runs] == [6, 8, 3]
    assert all(isinstance(desk.outcome(ticket), Run) for ticket in (first, large, other))


def test_a_small_request_passes_a_large_one_that_waits_for_one_before_it() -> None:
    desk = Desk(budget=10)
    desk.submit(Job(9, bytes=8), Job(8, bytes=8), Job(2, bytes=2))
    desk.advance()
    assert [run.job.bytes for run in desk.engine.runs] == [8, 2]


def test_a_large_request_is_not_passed_for_ever() -> None:
    """As soon as it would fit but for those that passed it, it is the next to start."""
    desk = Desk(budget=10)
    desk.submit(Job(3, bytes=7), Job(12, bytes=9))
    for _ in range(20):
        desk.submit(Job(3, bytes=2))
        desk.advance()
        if len(desk.scheduler.active) == 1 and desk.engine.runs[-1].job.bytes == 9:
            break
    else:
        pytest.fail("the large request never started")
    assert [run.job.bytes for run in desk.engine.runs] == [7, 2, 9]


def paced(desk: Desk, *steps: tuple[int, float]) -> None:
    """Let the engine have measured that steps of so many rows take so many seconds."""
    for rows, seconds in steps:
        for _ in range(ENOUGH):
            desk.engine.pace.note_step(rows, seconds)


def timed(desk: Desk, *jobs: Job, inference_timeout: float) -> list[Ticket[Job, Run]]:
    tickets = [Ticket(job, 1e9, inference_timeout, desk._done) for job in jobs]
    desk.outcomes |= {ticket: [] for ticket in tickets}
    desk.scheduler.add(tickets)
    return tickets


def test_work_that_cannot_be_done_in_time_is_refused_at_once_with_the_figures() -> None:
    desk = Desk()
    paced(desk, (64, 0.2))
    large, small = timed(desk, Job(512, rows=64), Job(2), inference_timeout=30)
    desk.advance()
    refusal = desk.outcome(large)
    assert isinstance(refusal, WorkTooLarge)
    for figure in ("64 sample paths of 512 steps", "102 s", "KRONOS_INFERENCE_TIMEOUT allows 30 s"):
        assert figure in refusal.message
    assert len(desk.engine.runs) == 1
    assert not desk.outcomes[small]


@pytest.mark.parametrize("measured", [(), ((64, 0.08),), ((1, 0.005),), ((128, 0.1),)])
def test_work_that_may_be_done_in_time_is_not_refused(
    measured: tuple[tuple[int, float], ...],
) -> None:
    """Not measured at all; within the margin; measured with fewer rows; with more."""
    desk = Desk()
    paced(desk, *measured)
    timed(desk, Job(512, rows=64), inference_timeout=30)
    desk.advance()
    assert len(desk.engine.runs) == 1
    assert len(desk.scheduler.active) == 1


def test_running_work_is_refused_once_the_pace_is_known() -> None:
    desk = Desk()
    (large,) = timed(desk, Job(512, rows=64), inference_timeout=30)
    desk.advance()
    paced(desk, (64, 0.2))
    desk.advance(seconds=0.5)
    assert isinstance(desk.outcome(large), WorkTooLarge)
    assert desk.engine.runs[0].released


def test_work_that_is_nearly_done_is_not_refused() -> None:
    desk = Desk()
    (large,) = timed(desk, Job(100, rows=64), inference_timeout=30)
    for _ in range(90):
        desk.advance(seconds=0.2)
    paced(desk, (64, 0.6))  # the machine became busy: all of it would take 60 s now
    for _ in range(10):
        desk.advance(seconds=0.6)
    assert isinstance(desk.outcome(large), Run)


def test_large_requests_run_one_after_the_other_while_only_small_steps_were_measured() -> None:
    desk = Desk(max_active=64, budget=1000)
    paced(desk, (1, 0.03))
    timed(desk, *[Job(60, bytes=64, rows=64)] * 6, Job(4), inference_timeout=30)
    desk.advance()
    assert [run.job.rows for run in desk.engine.runs] == [64, 1]


def test_large_requests_that_would_be_late_together_run_one_after_the_other() -> None:
    desk = Desk(max_active=64, budget=1000)
    paced(desk, (1, 0.01), (64, 0.2))
    large = [Job(100, bytes=64, rows=64)] * 6
    timed(desk, *large, *[Job(4)] * 3, inference_timeout=30)
    desk.advance()
    assert [run.job.rows for run in desk.engine.runs] == [64, 1, 1, 1]
    for _ in range(80):  # 19 steps of the first are left: 19 x 0.4 s + 81 x 0.2 s are too many
        desk.advance(seconds=0.2)
    assert [run.job.rows for run in desk.engine.runs] == [64, 1, 1, 1]
    for _ in range(16):
        desk.advance(seconds=0.2)
    assert [run.job.rows for run in desk.engine.runs] == [64, 1, 1, 1, 64]


def test_a_small_request_does_not_wait_for_a_large_one_that_it_makes_late() -> None:
    desk = Desk(max_active=64, budget=1000)
    paced(desk, (1, 0.4), (64, 0.5))
    timed(desk, Job(60, bytes=64, rows=64), Job(10), inference_timeout=30)
    desk.advance()
    assert [run.job.rows for run in desk.engine.runs] == [64, 1]


def test_large_requests_that_are_in_time_together_run_together() -> None:
    desk = Desk(max_active=64, budget=1000)
    paced(desk, (64, 0.02))
    timed(desk, *[Job(100, bytes=64, rows=64)] * 3, inference_timeout=30)
    desk.advance()
    assert len(desk.engine.runs) == 3


def test_a_request_larger_than_the_budget_runs_alone() -> None:
    desk = Desk(budget=10)
    (ticket,) = desk.submit(Job(1, bytes=99))
    desk.advance()
    assert isinstance(desk.outcome(ticket), Run)


def test_no_more_run_together_than_may() -> None:
    desk = Desk(max_active=2, budget=100)
    desk.submit(*[Job(2)] * 5)
    for _ in range(6):
        desk.advance()
    assert desk.engine.widest == 2
    assert len(desk.engine.runs) == 5


def test_a_full_queue_refuses_all_or_none_and_says_when() -> None:
    desk = Desk(max_queue=3, max_active=1)
    desk.submit(Job(9))
    desk.advance()
    desk.submit(Job(1), Job(1))
    with pytest.raises(QueueFull) as refusal:
        desk.submit(Job(1), Job(1))
    assert len(desk.scheduler.waiting) == 2
    assert refusal.value.retry_after is not None
    assert 1 <= refusal.value.retry_after <= 60
    desk.submit(Job(1))


def test_an_idle_service_takes_one_batch_of_any_size() -> None:
    desk = Desk(max_queue=2)
    assert len(desk.submit(*[Job(1)] * 6)) == 6


def test_deadlines_end_the_waiting_and_the_running_at_the_next_step() -> None:
    desk = Desk(max_active=1)
    running, waiting = desk.submit(Job(9), Job(9), seconds=5)
    desk.advance()
    desk.advance(seconds=5)
    assert isinstance(desk.outcome(running), PredictionTimeout)
    assert isinstance(desk.outcome(waiting), PredictionTimeout)
    assert desk.engine.runs[0].released
    assert not desk.scheduler.active
    assert not desk.scheduler.waiting


def test_inference_time_counts_from_the_start_of_inference() -> None:
    desk = Desk(max_active=1)
    first = Ticket(Job(3), 1e9, 2.0, desk._done)
    second = Ticket(Job(2), 1e9, 2.0, desk._done)
    desk.outcomes |= {first: [], second: []}
    desk.scheduler.add([first, second])
    desk.advance()
    desk.advance(seconds=2.0)
    assert isinstance(desk.outcome(first), PredictionTimeout)
    desk.advance(seconds=1.0)
    assert isinstance(desk.outcome(second), Run)


def test_cancelled_tickets_free_their_place() -> None:
    desk = Desk(max_active=1)
    running, waiting = desk.submit(Job(9), Job(2))
    desk.advance()
    running.cancelled = True
    desk.advance()
    assert desk.engine.runs[0].released
    desk.advance()
    assert isinstance(desk.outcome(waiting), Run)


def test_failures_stay_with_their_own() -> None:
    desk = Desk()
    bad, unstartable, good = desk.submit(Job(1, fails=True), Job(1, fails_to_start=True), Job(2))
    desk.advance()
    desk.advance()
    assert isinstance(desk.outcome(bad), ValueError)
    assert isinstance(desk.outcome(unstartable), ValueError)
    assert isinstance(desk.outcome(good), Run)


def test_a_broken_step_fails_those_in_it_and_work_goes_on() -> None:
    desk = Desk(max_active=1)
    inside, after = desk.submit(Job(5), Job(1))
    desk.engine.broken = True
    desk.advance()
    assert isinstance(desk.outcome(inside), RuntimeError)
    assert desk.engine.runs[0].released
    desk.advance()
    assert isinstance(desk.outcome(after), Run)


def test_fail_all_answers_everybody() -> None:
    desk = Desk(max_active=1)
    tickets = desk.submit(Job(5), Job(5))
    desk.advance()
    desk.scheduler.fail_all(InternalError(), 0.0)
    assert all(isinstance(desk.outcome(ticket), InternalError) for ticket in tickets)


class Scheduling(RuleBasedStateMachine):
    """Arrivals, cancellations, deadlines and failures in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(max_queue=6, budget=10, max_active=3)

    @rule(
        jobs=st.lists(
            st.builds(
                Job,
                steps=st.integers(1, 6),
                bytes=st.integers(1, 14),
                fails=st.booleans(),
                fails_to_start=st.integers(0, 9).map(lambda n: n == 0),
            ),
            min_size=1,
            max_size=4,
        ),
        seconds=st.integers(1, 12),
    )
    def arrive(self, jobs: list[Job], seconds: int) -> None:
        held = len(self.desk.outcomes)
        try:
            self.desk.submit(*jobs, seconds=seconds)
        except QueueFull:
            assert len(self.desk.outcomes) == held

    @precondition(lambda self: self.desk.outcomes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(list(self.desk.outcomes))).cancelled = True

    @rule()
    def break_engine(self) -> None:
        self.desk.engine.broken = True

    @rule(seconds=st.integers(0, 2))
    def advance(self, seconds: int) -> None:
        self.desk.advance(seconds)

    @invariant()
    def every_ticket_is_somewhere_exactly_once(self) -> None:
        scheduler = self.desk.scheduler
        held = [*scheduler.waiting, *scheduler.active]
        assert len(set(held)) == len(held)
        for ticket, outcomes in self.desk.outcomes.items():
            assert len(outcomes) + held.count(ticket) == 1

    @invariant()
    def limits_hold(self) -> None:
        active = self.desk.scheduler.active
        assert len(active) <= 3
        assert len(active) <= 1 or sum(ticket.bytes for ticket in active) <= 10

    @invariant()
    def no_memory_is_leaked(self) -> None:
        kept = [ticket.run for ticket in self.desk.scheduler.active]
        assert all(run.released or run in kept for run in self.desk.engine.runs)

    def teardown(self) -> None:
        for _ in range(40):
            self.desk.advance(1)
        assert all(len(outcomes) == 1 for outcomes in self.desk.outcomes.values())
        assert not self.desk.scheduler.active
        assert not self.desk.scheduler.waiting


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
