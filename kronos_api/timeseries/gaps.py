"""Gaps in a history: candles that are missing between two timestamps.

With a calendar, its sessions say which candles are missing. Without one, weekends, nights and
breaks that recur are no gaps; holidays are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.timeseries.timestamps import MICROSECOND, Instants, Timestamps

_HOUR: Final = timedelta(hours=1) // MICROSECOND
_DAY: Final = 24 * _HOUR
LONGEST_WEEKEND: Final = 84 * _HOUR
"""From an early closing on Friday to an opening on Monday."""
SHORTEST_NIGHT: Final = 4 * _HOUR
LATEST_CHANGE: Final = 4 * _HOUR
"""Clocks are changed before this time of day."""
MARGIN: Final = _HOUR
"""By so much openings and closings move when the clock is changed."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps of one history."""

    count: int
    missing: int
    """Candles that are missing in all of them."""
    longest: timedelta
    """Between the two timestamps around the longest gap."""
    after: int
    """The index of the timestamp before the longest gap."""


@dataclass(frozen=True, slots=True, eq=False)
class Continuation:
    """How a history goes on, and what was found out about it on the way."""

    timestamps: Timestamps
    gaps: Gaps | None = None
    outside: int = 0
    """Timestamps of the history outside the sessions of the calendar."""


def gaps_between(instants: Instants, indices: NDArray[np.int64], missing: Instants) -> Gaps | None:
    """Gaps where candles are `missing` [k] between neighbours of the timestamps `indices` [k + 1].

    None if there are none.
    """
    at = np.flatnonzero(missing > 0)
    if not at.size:
        return None
    lengths = instants[indices[at + 1]] - instants[indices[at]]
    longest = int(lengths.argmax())
    return Gaps(
        count=len(at),
        missing=int(missing[at].sum()),
        longest=timedelta(microseconds=int(lengths[longest])),
        after=int(indices[at[longest]]),
    )


def find_gaps(history: Timestamps) -> Gaps | None:
    """Gaps of a history without a calendar; None if there are none, or too few timestamps."""
    if len(history) < 3:
        return None
    lengths = np.diff(history.instants)
    step = int(np.sort(lengths)[(len(lengths) - 1) // 2])
    missing = np.rint(lengths / step).astype(np.int64) - 1
    missing[~(lengths > 1.5 * step)] = 0
    candidates = np.flatnonzero(missing > 0)
    if candidates.size:
        usual = _Usual(history, step, candidates)
        for at in candidates.tolist():
            # At most as many as fit: irregular seconds make each time of day a new one.
            expected = min(usual.expected(at), int(missing[at])) or missing[at]
            missing[at] = 0 if usual.explains(at) else expected
    return gaps_between(history.instants, np.arange(len(history)), missing)


class _Usual:
    """The weekdays and times of day at which a series has timestamps."""

    def __init__(self, history: Timestamps, step: int, gaps: NDArray[np.int64]) -> None:
        self._local = local = history.local
        self._step = step
        self._naive = not history.aware
        weekdays = (local // _DAY + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
        self._free = {5, 6} - set(weekdays.tolist())
        self._clock = np.unique(local % _DAY)
        ends = np.stack([local[gaps] % _DAY, local[gaps + 1] % _DAY], axis=1)
        pairs, counts = np.unique(ends, axis=0, return_counts=True)
        self._recurring = {tuple(pair) for pair in pairs[counts > 1].tolist()}

    def explains(self, at: int) -> bool:
        """Whether the gap after timestamp `at` is a weekend, a night, or a break that recurs."""
        start, end = int(self._local[at]), int(self._local[at + 1])
        length = end - start
        if length > LONGEST_WEEKEND:
            return False
        days = range(start // _DAY + 1, end // _DAY)
        if any((day + 3) % 7 in self._free for day in days):
            return True
        if length >= _DAY:
            return False
        if self._put_forward(start, end):
            return True
        if length >= SHORTEST_NIGHT and start // _DAY < end // _DAY:
            return not self._busy(start + MARGIN, end - MARGIN)
        recurs = (start % _DAY, end % _DAY) in self._recurring
        return recurs and not self._busy(start, end)

    def expected(self, at: int) -> int:
        """How many candles usually lie in the gap after timestamp `at`; 0: that cannot be told."""
        if self._step > _DAY:
            return 0
        start, end = int(self._local[at]), int(self._local[at + 1])
        early = np.searchsorted(self._clock, end % _DAY)
        late = len(self._clock) - np.searchsorted(self._clock, start % _DAY, side="right")
        if start // _DAY == end // _DAY:
            return int(early + late) - len(self._clock)
        days = range(start // _DAY + 1, end // _DAY)
        traded = sum((day + 3) % 7 not in self._free for day in days)
        return int(early + late) + traded * len(self._clock)

    def _put_forward(self, start: int, end: int) -> bool:
        """Whether naive local times skip the hour by which a clock is put forward, on a Sunday."""
        sunday = (end // _DAY + 3) % 7 == 6
        missing = end - start - self._step
        return self._naive and sunday and missing <= _HOUR and end % _DAY <= LATEST_CHANGE

    def _busy(self, start: int, end: int) -> bool:
        """Whether timestamps of other days lie between these times of day, both excluded."""
        first, last = start % _DAY, end % _DAY
        after, before = self._clock > first, self._clock < last
        return bool((after & before).any() if first < last else (after | before).any())
