"""How long work takes here: measured while forecasts run, used to tell what cannot be in time.

Estimates err on the low side. A phase without recent measurements counts as free: nothing is
refused before there is a measurement, and an old one (of a machine that was busy) is forgotten.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, Literal

Phase = Literal["tokenize", "prefill", "detokenize"]

SAMPLES: Final = 31
"""The last measurements of one kind, whose median counts: a stall of the machine is one of them."""
ENOUGH: Final = 10
"""Fewer measurements are none."""
AGE: Final = 60.0
"""Seconds after which a measurement no longer counts."""
WIDEST: Final = 16
"""Decode steps are measured by their number of rows, in powers of two up to 2^16."""


@dataclass(slots=True)
class Work:
    """What is left to do for one forecast: decode steps of `rows` sample paths, and chunks."""

    rows: int
    steps: int
    tokenize: int = 0
    prefill: int = 0
    detokenize: int = 0

    @property
    def candles(self) -> int:
        """Candles to decode, over all sample paths."""
        return self.rows * self.steps

    def copy(self) -> Work:
        """A copy, which can be counted down."""
        return replace(self)

    def done(self, phase: Phase) -> None:
        """Count one chunk as done."""
        setattr(self, phase, max(0, getattr(self, phase) - 1))


class _Samples:
    """The last measurements of one kind."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=SAMPLES)
        self._at = 0.0
        self.typical = 0.0

    def add(self, seconds: float, now: float) -> None:
        if now - self._at > AGE:
            self._seconds.clear()
        self._seconds.append(seconds)
        self._at = now
        self.typical = median(self._seconds) if len(self._seconds) >= ENOUGH else 0.0

    def at(self, now: float) -> float:
        """Typical seconds; 0 if there are too few measurements, or only old ones."""
        return self.typical if now - self._at <= AGE else 0.0


class Pace:
    """Measured seconds of chunks and decode steps. Belongs to the engine's thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._chunks: dict[Phase, _Samples] = {
            "tokenize": _Samples(),
            "prefill": _Samples(),
            "detokenize": _Samples(),
        }
        self._steps = [_Samples() for _ in range(WIDEST + 1)]
        self._rows = [0.0] * (WIDEST + 1)

    def note_chunk(self, phase: Phase, seconds: float) -> None:
        """A chunk of `phase` took so long."""
        self._chunks[phase].add(seconds, self.clock())

    def note_step(self, rows: int, seconds: float) -> None:
        """A decode step of `rows` sample paths took so long."""
        bucket = min(WIDEST, (rows - 1).bit_length())
        self._steps[bucket].add(seconds, self.clock())
        old = self._rows[bucket] or rows
        self._rows[bucket] = old + 0.2 * (rows - old)

    def seconds(self, work: Work) -> float:
        """Seconds that `work` takes alone, or less."""
        return self.ends([work], extrapolate=False)[0]

    def ends(self, works: Sequence[Work], *, extrapolate: bool = True) -> list[float]:
        """Seconds until each of `works` ends when they run together.

        Chunks of all are counted before the end of each. With `extrapolate`, a step of more rows
        than were measured takes longer in proportion; without, as long as the widest measured.
        """
        now = self.clock()
        passed = sum(self._chunk_seconds(work, now) for work in works)
        ends = [0.0] * len(works)
        order = sorted(range(len(works)), key=lambda index: works[index].steps)
        rows = sum(work.rows for work in works)
        steps = 0
        for index in order:
            work = works[index]
            if work.steps > steps:
                passed += (work.steps - steps) * self._step_seconds(rows, now, extrapolate)
                steps = work.steps
            ends[index] = passed
            rows -= work.rows
        return ends

    def _chunk_seconds(self, work: Work, now: float) -> float:
        chunks = self._chunks
        return (
            work.tokenize * chunks["tokenize"].at(now)
            + work.prefill * chunks["prefill"].at(now)
            + work.detokenize * chunks["detokenize"].at(now)
        )

    def _step_seconds(self, rows: int, now: float, extrapolate: bool) -> float:
        """Seconds of a decode step by a + b x rows.

        At least those of a step of fewer rows, and at least its share of a step of more.
        """
        found = widest = 0.0
        for samples, measured in zip(self._steps, self._rows, strict=True):
            if (seconds := samples.at(now)) > 0:
                widest = seconds * rows / measured
                found = max(found, min(seconds, widest))
        return max(found, widest) if extrapolate else found
