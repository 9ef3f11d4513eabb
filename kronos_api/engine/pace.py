"""Measured pace: how long chunks and decode steps take on this machine.

Estimates are lower bounds. A phase without recent measurements counts as 0 s: no forecast is
refused before its phases are measured, and old measurements (of a machine that was busy) expire.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

Phase = Literal["tokenize", "prefill", "detokenize"]

RECENT: Final = 31
"""Measurements of one kind that are kept; their median counts, so that a stall does not."""
ENOUGH: Final = 10
"""Measurements of one kind below which there is no estimate."""
AGE: Final = 60.0
"""Seconds after which measurements expire."""
WIDEST: Final = 16
"""Decode steps are measured by their number of rows, in powers of two up to 2^16."""


@dataclass(slots=True)
class PhaseCounts:
    """Decode steps of `rows` sample paths, and chunks of the other phases, of one forecast."""

    rows: int
    steps: int
    tokenize: int = 0
    prefill: int = 0
    detokenize: int = 0

    @property
    def candles(self) -> int:
        """Candles to decode, over all sample paths."""
        return self.rows * self.steps

    def count_down(self, phase: Phase) -> None:
        """Subtract one chunk of `phase`."""
        setattr(self, phase, max(0, getattr(self, phase) - 1))


class _Measurements:
    """Recent measurements of one kind."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._at = 0.0
        self._median = 0.0

    def add(self, seconds: float, now: float) -> None:
        if now - self._at > AGE:
            self._seconds.clear()
        self._seconds.append(seconds)
        self._at = now
        self._median = median(self._seconds) if len(self._seconds) >= ENOUGH else 0.0

    def typical(self, now: float) -> float:
        """Median seconds; 0 if there are too few measurements, or they have expired."""
        return self._median if now - self._at <= AGE else 0.0


class Pace:
    """Measured seconds of chunks and decode steps. Used by the engine's thread alone."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._chunks: dict[Phase, _Measurements] = {
            "tokenize": _Measurements(),
            "prefill": _Measurements(),
            "detokenize": _Measurements(),
        }
        self._steps = [_Measurements() for _ in range(WIDEST + 1)]
        self._rows = [0.0] * (WIDEST + 1)

    def note_chunk(self, phase: Phase, seconds: float) -> None:
        """Record the seconds of a chunk of `phase`."""
        self._chunks[phase].add(seconds, self.clock())

    def note_step(self, rows: int, seconds: float) -> None:
        """Record the seconds of a decode step of `rows` sample paths."""
        bucket = min(WIDEST, (rows - 1).bit_length())
        self._steps[bucket].add(seconds, self.clock())
        old = self._rows[bucket] or rows
        self._rows[bucket] = old + 0.2 * (rows - old)

    def seconds(self, counts: PhaseCounts) -> float:
        """Seconds of one forecast by itself, as a lower bound."""
        return self.ends([counts], extrapolate=False)[0]

    def ends(self, forecasts: Sequence[PhaseCounts], *, extrapolate: bool = True) -> list[float]:
        """Seconds until each of `forecasts` ends when they run together.

        The chunks of all are counted before the end of each. With `extrapolate`, a step of more
        rows than were measured takes longer in proportion; without, as long as the widest measured.
        """
        now = self.clock()
        passed = sum(self._chunk_seconds(counts, now) for counts in forecasts)
        ends = [0.0] * len(forecasts)
        order = sorted(range(len(forecasts)), key=lambda index: forecasts[index].steps)
        rows = sum(counts.rows for counts in forecasts)
        steps = 0
        for index in order:
            counts = forecasts[index]
            if counts.steps > steps:
                passed += (counts.steps - steps) * self._step_seconds(rows, now, extrapolate)
                steps = counts.steps
            ends[index] = passed
            rows -= counts.rows
        return ends

    def _chunk_seconds(self, counts: PhaseCounts, now: float) -> float:
        chunks = self._chunks
        return (
            counts.tokenize * chunks["tokenize"].typical(now)
            + counts.prefill * chunks["prefill"].typical(now)
            + counts.detokenize * chunks["detokenize"].typical(now)
        )

    def _step_seconds(self, rows: int, now: float, extrapolate: bool) -> float:
        """Seconds of a decode step, which takes a + b · rows.

        Therefore at least those of a step of fewer rows, and its share of a step of more rows.
        """
        found = widest = 0.0
        for measured, measured_rows in zip(self._steps, self._rows, strict=True):
            if (seconds := measured.typical(now)) > 0:
                widest = seconds * rows / measured_rows
                found = max(found, min(seconds, widest))
        return max(found, widest) if extrapolate else found
