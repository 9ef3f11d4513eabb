"""Times of the phases of requests and their series."""

from __future__ import annotations

import time

import pytest

from kronos_api.telemetry import phases
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.phases import PhaseClock, RequestPhases


def seconds(phase: str) -> float:
    labels = {"phase": phase}
    return metrics.registry.get_sample_value("kronos_phase_seconds_sum", labels) or 0


def test_clock_adds_up_a_phase_that_is_entered_again() -> None:
    before = seconds("prefill")
    clock = PhaseClock(10.0)
    for phase, now in (("prefill", 11), ("prefill", 12), ("decode", 14), ("prefill", 17)):
        clock.enter(phase, now)
    assert clock.seconds(18.0) == {"queue": 1, "prefill": 4, "decode": 3}
    clock.end(19.0)
    clock.end(30.0)
    assert clock.seconds(40.0) == {"queue": 1, "prefill": 5, "decode": 3}
    spent = clock.times["prefill"]
    assert (spent.began, spent.ended, spent.seconds) == (11, 19, 5)
    assert seconds("prefill") == pytest.approx(before + 5)


def test_request_has_the_longest_time_of_its_series(monkeypatch: pytest.MonkeyPatch) -> None:
    request = RequestPhases()
    token = phases.current.set(request)
    for wait in (1.0, 3.0, 2.0):
        clock = PhaseClock(0.0)
        clock.enter("decode", wait)
        clock.end(4.0)
        phases.follow(clock)
    running = PhaseClock(0.0)
    phases.follow(running)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    with phases.measured("write"):
        pass
    assert request.milliseconds() == {
        "queue_ms": 5000,
        "decode_ms": 3000,
        "write_ms": 0,
        "inference_ms": 3000,
    }
    phases.current.reset(token)
