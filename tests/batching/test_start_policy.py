"""The order in which waiting forecasts start: KV budget, time, overtaking."""

from __future__ import annotations

import pytest

from tests.batching.simulation import Simulation, failure, request


def test_first_come_first_served_among_forecasts_of_like_size() -> None:
    simulation = Simulation(kv_budget=10)
    tickets = simulation.submit(request(2, bytes=6), request(1, bytes=8), request(1, bytes=3))
    simulation.advance()
    assert simulation.started_bytes == [6]
    for _ in range(3):
        simulation.advance()
    assert simulation.started_bytes == [6, 8, 3]
    assert [failure(ticket) for ticket in tickets] == [None, None, None]


def test_small_forecast_overtakes_a_large_one_that_waits_for_a_running_one() -> None:
    simulation = Simulation(kv_budget=10)
    simulation.submit(request(9, bytes=8), request(8, bytes=8), request(2, bytes=2))
    simulation.advance()
    assert simulation.started_bytes == [8, 2]


def test_overtaking_does_not_starve_a_large_forecast() -> None:
    """It starts next as soon as it would fit without those that overtook it."""
    simulation = Simulation(kv_budget=10)
    simulation.submit(request(3, bytes=7), request(12, bytes=9))
    for _ in range(20):
        simulation.submit(request(3, bytes=2))
        simulation.advance()
        if len(simulation.scheduler.active) == 1 and simulation.started_bytes[-1] == 9:
            break
    else:
        pytest.fail("the large forecast never started")
    assert simulation.started_bytes == [7, 2, 9]


def test_forecast_larger_than_the_kv_budget_runs_alone() -> None:
    simulation = Simulation(kv_budget=10)
    (ticket,) = simulation.submit(request(1, bytes=99))
    simulation.advance()
    assert failure(ticket) is None


def test_large_forecasts_run_in_turn_while_only_small_steps_are_measured() -> None:
    simulation = Simulation(max_active=64, kv_budget=1000)
    simulation.measure((1, 0.03))
    large = [request(60, bytes=64, rows=64) for _ in range(6)]
    simulation.submit(*large, request(4), inference_timeout=30)
    simulation.advance()
    assert simulation.started_rows == [64, 1]


def test_large_forecasts_that_would_be_late_together_run_in_turn() -> None:
    simulation = Simulation(max_active=64, kv_budget=1000)
    simulation.measure((1, 0.01), (64, 0.2))
    large = [request(100, bytes=64, rows=64) for _ in range(6)]
    simulation.scheduler.max_queue = 9
    simulation.submit(*large, *[request(4) for _ in range(3)], inference_timeout=30)
    simulation.advance()
    assert simulation.started_rows == [64, 1, 1, 1]
    for _ in range(80):  # 19 steps of the first are left: 19 x 0.4 s + 81 x 0.2 s are too many
        simulation.advance(seconds=0.2)
    assert simulation.started_rows == [64, 1, 1, 1]
    for _ in range(16):
        simulation.advance(seconds=0.2)
    assert simulation.started_rows == [64, 1, 1, 1, 64]


def test_large_forecasts_that_are_in_time_together_run_together() -> None:
    simulation = Simulation(max_active=64, kv_budget=1000)
    simulation.measure((64, 0.02))
    large = [request(100, bytes=64, rows=64) for _ in range(3)]
    simulation.submit(*large, inference_timeout=30)
    simulation.advance()
    assert len(simulation.engine.runs) == 3


def test_small_forecast_does_not_wait_for_a_large_one_that_it_makes_late() -> None:
    simulation = Simulation(max_active=64, kv_budget=1000)
    simulation.measure((1, 0.4), (64, 0.5))
    simulation.submit(request(60, bytes=64, rows=64), request(10), inference_timeout=30)
    simulation.advance()
    assert simulation.started_rows == [64, 1]


def test_small_forecast_starts_while_a_convoy_of_large_ones_waits_for_kv_cache() -> None:
    simulation = Simulation(max_queue=99, max_active=64, kv_budget=100)
    simulation.submit(*[request(1000, bytes=10, rows=8) for _ in range(30)])
    simulation.advance()
    (small,) = simulation.submit(request(2, bytes=2))
    simulation.advance()
    simulation.advance()
    assert failure(small) is None
    assert len(simulation.engine.runs) == 9


def test_small_forecast_starts_while_a_convoy_of_long_ones_reaches_max_active() -> None:
    simulation = Simulation(max_queue=99, max_active=8, kv_budget=1000)
    simulation.submit(*[request(1000, bytes=4) for _ in range(30)])
    simulation.advance()
    small = simulation.submit(request(2), request(2))
    for _ in range(4):  # one at a time beyond max_active
        simulation.advance()
    assert [failure(ticket) for ticket in small] == [None, None]
    assert simulation.engine.widest == 9
