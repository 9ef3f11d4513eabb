"""Estimates from measured steps and chunks: lower bounds, and none without measurements."""

from __future__ import annotations

import pytest

from kronos_api.engine.pace import AGE, ENOUGH, Pace, PhaseCounts


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def measured(steps: dict[int, float], clock: Clock | None = None) -> Pace:
    """A pace with measured steps: rows to seconds."""
    pace = Pace(clock or Clock())
    for rows, seconds in steps.items():
        for _ in range(ENOUGH):
            pace.note_step(rows, seconds)
    return pace


def test_too_few_measurements_give_no_estimate() -> None:
    pace = Pace(Clock())
    for _ in range(ENOUGH - 1):
        pace.note_step(8, 1.0)
        pace.note_chunk("prefill", 1.0)
    assert pace.seconds(PhaseCounts(8, 100, prefill=9)) == 0


def test_steps_and_chunks_add_up() -> None:
    pace = measured({8: 0.5})
    for phase, seconds in {"tokenize": 1.0, "prefill": 2.0, "detokenize": 3.0}.items():
        for _ in range(ENOUGH):
            pace.note_chunk(phase, seconds)  # type: ignore[arg-type]
    assert pace.seconds(PhaseCounts(8, 10, tokenize=1, prefill=2, detokenize=3)) == 5 + 1 + 4 + 9


@pytest.mark.parametrize(
    ("rows", "low", "likely"),
    [
        (1, 0.01, 0.01),  # as measured
        (32, 0.05, 0.05),  # its share of 64 rows, more than a step of 1
        (64, 0.1, 0.1),
        (256, 0.1, 0.4),  # no less than the widest measured; in proportion to it
    ],
)
def test_steps_of_other_rows_are_estimated_from_those_measured(
    rows: int, low: float, likely: float
) -> None:
    pace = measured({1: 0.01, 64: 0.1})
    assert pace.seconds(PhaseCounts(rows, 1)) == pytest.approx(low)
    assert pace.ends([PhaseCounts(rows, 1)]) == [pytest.approx(likely)]


def test_forecasts_that_run_together_share_steps_until_they_end() -> None:
    pace = measured({1: 0.01, 10: 0.1})
    # 5 steps of 10 + 2 rows, then 15 of 10 rows.
    ends = pace.ends([PhaseCounts(10, 20), PhaseCounts(2, 5)])
    assert ends == [pytest.approx(5 * 0.12 + 15 * 0.1), pytest.approx(5 * 0.12)]


def test_single_stall_does_not_change_the_estimate() -> None:
    pace = measured({8: 0.1})
    pace.note_step(8, 30.0)
    assert pace.seconds(PhaseCounts(8, 1)) == pytest.approx(0.1)


def test_old_measurements_expire() -> None:
    clock = Clock()
    pace = measured({8: 9.0}, clock)
    clock.now = AGE + 1
    assert pace.seconds(PhaseCounts(8, 1)) == 0
    pace.note_step(8, 0.1)
    assert pace.seconds(PhaseCounts(8, 1)) == 0  # one is not enough
    for _ in range(ENOUGH):
        pace.note_step(8, 0.1)
    assert pace.seconds(PhaseCounts(8, 1)) == pytest.approx(0.1)
