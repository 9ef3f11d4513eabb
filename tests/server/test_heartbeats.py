"""Heartbeats are judged by the time during which the judge itself ran."""

from __future__ import annotations

import pytest
import structlog

from kronos_api.server.heartbeats import MAX_STEP, AwakeClock, Heartbeats, Watchdog


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_time_passes_while_this_process_runs() -> None:
    clock = Clock()
    awake = AwakeClock(clock)
    for _ in range(40):
        clock.now += 0.25
        awake.advance()
    assert awake.now == pytest.approx(10)


def test_pause_of_the_machine_counts_as_one_step() -> None:
    clock = Clock()
    awake = AwakeClock(clock)
    clock.now += 3600
    assert awake.advance() == MAX_STEP


def test_silence_lasts_until_another_beat() -> None:
    beats = Heartbeats()
    assert beats.silence(1, 7.0, now=10) == 0
    assert beats.silence(1, 7.0, now=14) == 4
    assert beats.silence(2, 7.0, now=14) == 0
    assert beats.silence(1, 8.0, now=15) == 0
    beats.drop(2)
    assert beats.silence(2, 7.0, now=20) == 0


def test_the_watchdog_ends_a_process_whose_loop_is_silent() -> None:
    clock = Clock()
    ended: list[int] = []
    watchdog = Watchdog(8, 3, clock=clock, end=ended.append)
    clock.now += 3600  # as after a pause
    assert watchdog.check()
    with structlog.testing.capture_logs() as lines:
        for _ in range(32):
            clock.now += 0.25
            assert watchdog.check()
        clock.now += 0.25
        assert not watchdog.check()
    assert ended == [3]
    (line,) = lines
    assert (line["event"], line["setting"]) == ("event_loop_stalled", "GUNICORN_TIMEOUT")


def test_watchdog_does_not_end_a_loop_with_heartbeats() -> None:
    clock = Clock()
    ended: list[int] = []
    watchdog = Watchdog(1, 3, clock=clock, end=ended.append)
    for _ in range(100):
        clock.now += 0.5
        watchdog._beats += 1
        assert watchdog.check()
    assert ended == []


def test_the_watchdog_waits_for_a_model_that_loads() -> None:
    clock = Clock()
    ended: list[int] = []
    watchdog = Watchdog(1, 3, clock=clock, end=ended.append)
    loads = True
    watchdog._loading = lambda: loads
    for _ in range(100):
        clock.now += 0.5
        assert watchdog.check()
    loads = False
    for _ in range(4):
        clock.now += 0.5
        watchdog.check()
    assert ended[:1] == [3]
