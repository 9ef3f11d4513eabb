"""How long each phase of a request and of its forecasts takes.

The route measures `parse` and `write`, the scheduler the phases of each series. Times are seconds
of `time.monotonic`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from kronos_api.telemetry.metrics import metrics

QUEUE: Final = "queue"
ENGINE: Final = ("tokenize", "prefill", "decode", "detokenize")
"""The phases of a series in the engine."""
INFERENCE: Final = "inference"
"""All phases in the engine together."""
PHASES: Final = ("parse", QUEUE, *ENGINE, "write")
"""All phases, in the order of a request."""


@dataclass(slots=True)
class PhaseTime:
    """One phase: when it began first and ended last, and its seconds in between.

    A phase that is entered again, such as prefill for a further window, adds to its seconds.
    """

    began: float
    ended: float
    seconds: float


class PhaseClock:
    """The phases of one series, one after the other. It begins in the queue.

    Written by one thread; `times` of a running series lack the phase in progress.
    """

    __slots__ = ("_phase", "_since", "times")

    def __init__(self, now: float) -> None:
        self.times: dict[str, PhaseTime] = {}
        self._phase: str | None = QUEUE
        self._since = now

    def enter(self, phase: str | None, now: float) -> None:
        """The current phase has ended and `phase` begins, unless that is the current one."""
        if phase == self._phase:
            return
        if self._phase is not None:
            add(self.times, self._phase, self._since, now)
        self._phase, self._since = phase, now

    def seconds(self, now: float) -> dict[str, float]:
        """Seconds of each phase until `now`, of the current one too; any thread may ask."""
        found = {phase: spent.seconds for phase, spent in list(self.times.items())}
        phase, since = self._phase, self._since
        if phase is not None:
            found[phase] = found.get(phase, 0.0) + now - since
        return found

    def end(self, now: float) -> None:
        """The series has ended: record the times of its phases in the metrics. Repeatable."""
        if self._phase is None:
            return
        self.enter(None, now)
        for phase, spent in self.times.items():
            metrics.phase.labels(phase).observe(spent.seconds)


def add(times: dict[str, PhaseTime], phase: str, began: float, ended: float) -> None:
    """Add a part of `phase` to `times`."""
    if (spent := times.get(phase)) is None:
        times[phase] = PhaseTime(began, ended, ended - began)
    else:
        spent.ended = ended
        spent.seconds += ended - began


@dataclass(slots=True)
class RequestPhases:
    """The phases of one request and of its series."""

    times: dict[str, PhaseTime] = field(default_factory=dict)
    series: list[PhaseClock] = field(default_factory=list)

    def milliseconds(self) -> dict[str, float]:
        """`parse_ms`, `queue_ms`, ..., `inference_ms`: so far, the longest of all series."""
        now = time.monotonic()
        parts = [{phase: spent.seconds for phase, spent in self.times.items()}]
        for clock in self.series:
            part = clock.seconds(now)
            if any(phase in part for phase in ENGINE):
                part[INFERENCE] = sum(part.get(phase, 0.0) for phase in ENGINE)
            parts.append(part)
        return {
            f"{phase}_ms": round(1000 * max(part.get(phase, 0.0) for part in parts), 3)
            for phase in (*PHASES, INFERENCE)
            if any(phase in part for part in parts)
        }


current: Final[ContextVar[RequestPhases | None]] = ContextVar("phases", default=None)
"""The phases of the request in whose context the code runs; None outside requests."""


@contextmanager
def measured(phase: str) -> Iterator[None]:
    """Measure a phase of the current request, which may end with an error."""
    began = time.monotonic()
    try:
        yield
    finally:
        ended = time.monotonic()
        metrics.phase.labels(phase).observe(ended - began)
        if (request := current.get()) is not None:
            add(request.times, phase, began, ended)


def follow(clock: PhaseClock) -> None:
    """Add a series to the phases of the current request."""
    if (request := current.get()) is not None:
        request.series.append(clock)
