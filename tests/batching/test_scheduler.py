"""The scheduler: every accepted forecast ends exactly once, in time or with an error."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kronos_api.errors import InternalError, PredictionTimeout, QueueFull, WorkTooLarge
from tests.batching.simulation import Request, Simulation, failure, request


def test_forecasts_run_together_and_end_one_by_one() -> None:
    simulation = Simulation()
    short, long = simulation.submit(request(1), request(3))
    simulation.advance()
    assert failure(short) is None
    assert not long.future.done()
    simulation.advance()
    simulation.advance()
    assert failure(long) is None
    assert simulation.engine.widest == 2


def test_no_more_than_max_active_run_together() -> None:
    simulation = Simulation(max_active=2, kv_budget=100)
    simulation.submit(*[request(2) for _ in range(5)])
    for _ in range(6):
        simulation.advance()
    assert simulation.engine.widest == 2
    assert len(simulation.engine.runs) == 5


def test_full_queue_refuses_all_or_none_with_figures_and_retry_after() -> None:
    simulation = Simulation(max_queue=3, max_active=1)
    simulation.submit(request(9))
    simulation.advance()
    simulation.submit(request(1), request(1))
    with pytest.raises(QueueFull) as refusal:
        simulation.submit(request(1), request(1))
    assert len(simulation.scheduler.waiting) == 2
    seconds = refusal.value.retry_after
    assert seconds is not None
    assert 1 <= seconds <= 60
    for figure in ("2 of 3 forecasts waiting", "2 more", f"{seconds} s", "KRONOS_MAX_QUEUE"):
        assert figure in refusal.value.message
    simulation.submit(request(1))


def test_batch_of_any_size_is_accepted_while_none_waits() -> None:
    simulation = Simulation(max_queue=2, max_active=4)
    simulation.submit(request(9))
    simulation.advance()
    assert len(simulation.submit(*[request(1) for _ in range(6)])) == 6
    with pytest.raises(QueueFull):
        simulation.submit(request(1))


def test_retry_after_follows_the_queue_and_the_measured_rate() -> None:
    simulation = Simulation(max_queue=100, max_active=1)
    assert simulation.scheduler.retry_after() == 1
    simulation.submit(*[request(2) for _ in range(20)])
    assert simulation.scheduler.retry_after() == 10  # until anything is measured, 1 s each
    simulation.advance()
    for _ in range(4):  # one ends every 3 s
        simulation.advance(seconds=1)
        simulation.advance(seconds=2)
    assert simulation.scheduler.retry_after() == 22  # half of 15, at almost 1 in 3 s
    simulation.advance(seconds=100)
    assert simulation.scheduler.retry_after() == 60


def test_deadline_ends_waiting_and_running_forecasts_at_the_next_step() -> None:
    simulation = Simulation(max_active=1)
    running, waiting = simulation.submit(request(9), request(9), seconds=5)
    simulation.advance(seconds=1)
    simulation.advance(seconds=4)
    assert isinstance(failure(running), PredictionTimeout)
    assert "1.0 s in the queue and 4.0 s of inference" in str(failure(running))
    assert isinstance(failure(waiting), PredictionTimeout)
    assert "5.0 s in the queue, and was cancelled" in str(failure(waiting))
    assert simulation.engine.runs[0].released
    assert not simulation.scheduler.active
    assert not simulation.scheduler.waiting


def test_inference_timeout_counts_from_the_start_of_inference() -> None:
    simulation = Simulation(max_active=1)
    first, second = simulation.submit(request(3), request(2), inference_timeout=2)
    simulation.advance()
    simulation.advance(seconds=2)
    assert "KRONOS_INFERENCE_TIMEOUT (2 s)" in str(failure(first))
    simulation.advance(seconds=1)
    assert failure(second) is None


def test_cancelled_forecasts_free_their_capacity() -> None:
    simulation = Simulation(max_active=1)
    running, waiting = simulation.submit(request(9), request(2))
    simulation.advance()
    assert running.future.cancel()
    simulation.advance()
    assert simulation.engine.runs[0].released
    simulation.advance()
    assert failure(waiting) is None


def test_failure_of_one_forecast_spares_the_others() -> None:
    simulation = Simulation()
    bad, unstartable, good = simulation.submit(
        request(1, fails=True), request(1, fails_to_start=True), request(2)
    )
    simulation.advance()
    simulation.advance()
    assert isinstance(failure(bad), InternalError)
    assert isinstance(failure(unstartable), InternalError)
    assert failure(good) is None


def test_failed_step_fails_its_forecasts_and_the_next_ones_run() -> None:
    simulation = Simulation(max_active=1)
    inside, after = simulation.submit(request(5), request(1))
    simulation.engine.broken = True
    simulation.advance()
    assert isinstance(failure(inside), InternalError)
    assert simulation.engine.runs[0].released
    simulation.advance()
    assert failure(after) is None


def test_fail_all_ends_waiting_and_running_forecasts() -> None:
    simulation = Simulation(max_active=1)
    tickets = simulation.submit(request(5), request(5))
    simulation.advance()
    simulation.scheduler.fail_all(InternalError(), 0.0)
    assert all(isinstance(failure(ticket), InternalError) for ticket in tickets)


def test_oversized_forecast_is_refused_at_once_with_figures() -> None:
    simulation = Simulation()
    simulation.measure((64, 0.2))
    large, small = simulation.submit(request(512, rows=64), request(2), inference_timeout=30)
    simulation.advance()
    refusal = failure(large)
    assert isinstance(refusal, WorkTooLarge)
    for figure in ("64 sample paths of 512 steps", "102 s", "KRONOS_INFERENCE_TIMEOUT allows 30 s"):
        assert figure in refusal.message
    assert len(simulation.engine.runs) == 1
    assert not small.future.done()


@pytest.mark.parametrize(
    "measured",
    [
        pytest.param((), id="nothing measured"),
        pytest.param(((64, 0.08),), id="within the margin"),
        pytest.param(((1, 0.005),), id="measured with fewer rows"),
        pytest.param(((128, 0.1),), id="measured with more rows"),
    ],
)
def test_forecast_that_may_end_in_time_is_not_refused(
    measured: tuple[tuple[int, float], ...],
) -> None:
    simulation = Simulation()
    simulation.measure(*measured)
    simulation.submit(request(512, rows=64), inference_timeout=30)
    simulation.advance()
    assert len(simulation.engine.runs) == 1
    assert len(simulation.scheduler.active) == 1


def test_running_forecast_is_refused_once_the_pace_is_measured() -> None:
    simulation = Simulation()
    (large,) = simulation.submit(request(512, rows=64), inference_timeout=30)
    simulation.advance()
    simulation.measure((64, 0.2))
    simulation.advance(seconds=0.5)
    assert isinstance(failure(large), WorkTooLarge)
    assert simulation.engine.runs[0].released


def test_nearly_finished_forecast_survives_a_machine_that_became_busy() -> None:
    simulation = Simulation()
    (large,) = simulation.submit(request(100, rows=64), inference_timeout=30)
    for _ in range(90):
        simulation.advance(seconds=0.2)
    simulation.measure((64, 0.6))  # all of it would take 60 s now
    for _ in range(10):
        simulation.advance(seconds=0.6)
    assert failure(large) is None


class Scheduling(RuleBasedStateMachine):
    """Arrivals, cancellations, deadlines and failures in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation(max_queue=6, kv_budget=10, max_active=3)

    @rule(
        requests=st.lists(
            st.builds(
                request,
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
    def arrive(self, requests: list[Request], seconds: int) -> None:
        accepted = len(self.simulation.tickets)
        try:
            self.simulation.submit(*requests, seconds=seconds)
        except QueueFull:
            assert len(self.simulation.tickets) == accepted

    @precondition(lambda self: self.simulation.tickets)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.simulation.tickets)).future.cancel()

    @rule()
    def break_engine(self) -> None:
        self.simulation.engine.broken = True

    @rule(seconds=st.integers(0, 2))
    def advance(self, seconds: int) -> None:
        self.simulation.advance(seconds)

    @invariant()
    def every_ticket_is_held_or_ended_exactly_once(self) -> None:
        scheduler = self.simulation.scheduler
        held = [*scheduler.waiting, *scheduler.active]
        assert len(set(held)) == len(held)
        for ticket in self.simulation.tickets:
            assert ticket.ends + held.count(ticket) == 1
            assert ticket.future.done() or not ticket.ends

    @invariant()
    def limits_hold(self) -> None:
        active = self.simulation.scheduler.active
        assert len(active) <= 3
        assert len(active) <= 1 or sum(ticket.kv_bytes for ticket in active) <= 10

    @invariant()
    def kv_cache_of_ended_forecasts_is_released(self) -> None:
        running = [ticket.sequence for ticket in self.simulation.scheduler.active]
        assert all(run.released or run in running for run in self.simulation.engine.runs)

    def teardown(self) -> None:
        for _ in range(40):
            self.simulation.advance(1)
        assert all(ticket.ends == 1 for ticket in self.simulation.tickets)
        assert not self.simulation.scheduler.active
        assert not self.simulation.scheduler.waiting


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(
    max_examples=settings().max_examples * 3 // 5, stateful_step_count=40, deadline=None
)
