"""The sessions of one exchange, and how a history goes on in them.

Daily bars have one timestamp a session, at the time of day of the last one. Intraday bars go on in
the history's own phase: see `bars`. Both are written at the history's offset, or at the exchange's
own where the history is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta, timezone, tzinfo
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.timeseries.bars import Anchor, BarLabel, Bars, Hours, schemes
from kronos_api.timeseries.frequency import DAY, Frequency
from kronos_api.timeseries.gaps import Continuation, gaps_between
from kronos_api.timeseries.timestamps import (
    MICROSECOND,
    Instants,
    Timestamps,
    instants_of_local,
    local_microseconds,
    naive_datetimes,
)
from kronos_api.timeseries.zones import naive_in_gap, written_in
from kronos_api.violations import InvalidFields, invalid_field

Days = NDArray[np.datetime64]

PHASES: Final = 3
"""Phases that are tried: those of a short first, a whole, and a short last bar."""
_DAY: Final = DAY // MICROSECOND


@dataclass(frozen=True, eq=False)
class Sessions:
    """The sessions of one exchange over some years, in order.

    `days` are the dates of the sessions, datetime64[D] [sessions]. `opens`, `pauses`, `resumes`
    and `closes` are microseconds since 1970 UTC, int64 [sessions]; without a lunch break, `pauses`
    and `resumes` equal `closes`. Sessions without time between them are one.
    """

    code: str
    zone: tzinfo
    days: Days
    opens: Instants
    pauses: Instants
    resumes: Instants
    closes: Instants

    @cached_property
    def segments(self) -> Hours:
        """Times of trade without a pause, midnights on the exchange's clock."""
        broken = self.pauses < self.closes
        opens = np.sort(np.concatenate([self.opens, self.resumes[broken]]))
        closes = np.sort(np.concatenate([self.closes, self.pauses[broken]]))
        return Hours(opens, closes, closes, closes, midnights(opens, self.zone))

    @cached_property
    def hours(self) -> Hours:
        """Times of trade by session, midnights on the exchange's clock."""
        opens = midnights(self.opens, self.zone)
        return Hours(self.opens, self.pauses, self.resumes, self.closes, opens)

    def following(
        self, history: Timestamps, horizon: int, freq: Frequency, label: BarLabel | None = None
    ) -> Continuation:
        """The next `horizon` timestamps after `history`; raises `InvalidFields`.

        Without a `label`, the history's own is taken: the opening of the bar, unless more of its
        timestamps lie on ends of bars.
        """
        if not history.aware and (skipped := naive_in_gap(history, self.zone)) is not None:
            rule = (
                f"a local time of {self.zone}, whose clock was put forward over it: give that"
                " exchange's local times or give offsets, such as 2025-06-02T09:30:00-04:00"
            )
            raise invalid_field("timestamps", rule, skipped)
        if freq.daily:
            continuation = self._daily(history, horizon, label)
        elif freq.intraday and freq.step is not None:
            continuation = self._intraday(history, horizon, freq.step, label)
        else:
            raise invalid_field("freq", "shorter than a day, 1D or B where a calendar is given")
        if len(continuation.timestamps) < horizon:
            rule = f"one that reaches over the horizon: {self.code} ends on {self.days[-1]}"
            raise invalid_field("calendar", rule)
        return continuation

    def _daily(self, history: Timestamps, horizon: int, label: BarLabel | None) -> Continuation:
        written = history.local
        local = local_microseconds(history.instants, self.zone) if history.aware else written
        ends = label is BarLabel.CLOSE and history.style.separator is not None
        # 15:00Z is written for a day that began at midnight in Tokyo.
        clocks = [_day_of_bar(written, ends), _day_of_bar(local, ends)]
        in_zone = self._sessions_among(clocks[1]) > self._sessions_among(clocks[0])
        clock = clocks[in_zone]
        shift = (local if in_zone else written)[-1] - clock[-1]
        dates = clock // _DAY
        days = self.days.astype(np.int64)
        after = int(np.searchsorted(days, dates[-1], side="right"))
        future = days[after : after + horizon] * _DAY + clock[-1] % _DAY + shift
        if in_zone or written_in(history, self.zone):
            instants = instants_of_local(future, self.zone)
            timestamps = self._written(history, instants)
        else:
            timestamps = history.continued(naive_datetimes(future))
        traded = np.isin(dates, days)
        numbers = np.searchsorted(days, dates[traded])
        gaps = gaps_between(history.instants, np.flatnonzero(traded), np.diff(numbers) - 1)
        return Continuation(timestamps, gaps, outside=int((~traded).sum()))

    def _sessions_among(self, local: Instants) -> int:
        """How many of the local times fall on the date of a session."""
        return int(np.isin(local // _DAY, self.days.astype(np.int64)).sum())

    def _intraday(
        self, history: Timestamps, horizon: int, step: timedelta, label: BarLabel | None
    ) -> Continuation:
        instants = self._instants(history)
        length = step // MICROSECOND
        bars = self._bars(history, instants, length, label)
        fitting = bars.fitting(instants)
        inside = fitting | self.segments.inside(instants, bars.scheme.label)
        if 2 * fitting.sum() < inside.sum():
            raise self._no_phase(step, label)
        labels = bars.following(int(instants[-1]), horizon)
        numbers = bars.numbers(instants[fitting])
        gaps = gaps_between(instants, np.flatnonzero(fitting), np.diff(numbers) - 1)
        return Continuation(self._written(history, labels), gaps, outside=int((~inside).sum()))

    def _bars(
        self, history: Timestamps, instants: Instants, length: int, label: BarLabel | None
    ) -> Bars:
        """The bars that explain the history best; raises `InvalidFields` against its label."""
        if label is not None:
            self._check_label(instants, label)
        first, last = int(instants[0]), int(instants[-1])
        paused = bool((self.pauses < self.closes).any())
        candidates = []
        for zone in self._clocks(history):
            past, whole = self._by_anchor(zone, first, last), self._by_anchor(zone, first)
            phases = _phases(past[Anchor.CLOCK], instants, length)
            for one in (label,) if label else (BarLabel.OPEN, BarLabel.CLOSE):
                for scheme in schemes(one, phases, paused):
                    # Full steps on the clock must fit between all sessions, those to come as well.
                    hours = (whole if scheme.full_steps else past)[scheme.anchor]
                    score = Bars(hours, length, scheme).score(instants)
                    bars = Bars(whole[scheme.anchor], length, scheme)
                    # Of equal ones, full steps from midnight say whose clock it is.
                    candidates.append(((*score, scheme.phase == 0), bars))
        return max(candidates, key=lambda scored: scored[0])[1]

    def _by_anchor(self, zone: tzinfo, first: int, last: int | None = None) -> dict[Anchor, Hours]:
        """Trading hours around `first` to `last`, by where bars begin; days as `zone` has them."""
        segments, sessions = (hours.around(first, last) for hours in (self.segments, self.hours))
        clock = replace(segments, midnights=midnights(segments.opens, zone))
        return {Anchor.SEGMENT: segments, Anchor.SESSION: sessions, Anchor.CLOCK: clock}

    def _clocks(self, history: Timestamps) -> list[tzinfo]:
        """The zones by whose clock bars may begin: the exchange's, and that of another offset.

        Sources that write UTC mostly begin bars by the exchange's clock. Only a history that goes
        over a change of the clock tells the two apart.
        """
        if history.offset is None or written_in(history, self.zone):
            return [self.zone]
        return [self.zone, timezone(history.offset)]

    def _check_label(self, instants: Instants, label: BarLabel) -> None:
        """Refuse a label that the openings and closings among the timestamps contradict."""
        opened = label is BarLabel.OPEN
        own, other = self.segments.opens, self.segments.closes
        if not opened:
            own, other = other, own
        reached = own[(own >= instants[0]) & (own <= instants[-1])]
        contrary = int(np.isin(instants, other).sum())
        if contrary and reached.size and not np.isin(reached, instants).any():
            rule = (
                f"{'close' if opened else 'open'} or absent: {contrary} of timestamps lie on"
                f" {'closings' if opened else 'openings'} of {self.code}, where no bar"
                f" {'begins' if opened else 'ends'}"
            )
            raise invalid_field("bar_label", rule)

    def _no_phase(self, step: timedelta, label: BarLabel | None) -> InvalidFields:
        rule = (
            f"the step of timestamps where a calendar is given: most of them lie on no bars of"
            f" {step} in the sessions of {self.code}, neither counted from the opening nor on the"
            f" clock{f', labelled by their {label.value}' if label else ''}. Check freq, calendar"
            f" and bar_label; timestamps without an offset are local times of {self.zone}"
        )
        return invalid_field("freq", rule)

    def _instants(self, history: Timestamps) -> Instants:
        """Of the timestamps; those without an offset are the exchange's local time."""
        if history.aware:
            return history.instants
        return instants_of_local(history.local, self.zone)

    def _written(self, history: Timestamps, instants: Instants) -> Timestamps:
        """`instants` in the style of the history, at its offset or, where it has that, ours."""
        if not len(instants):
            return history.continued([])
        if history.offset is None:
            return history.continued(naive_datetimes(local_microseconds(instants, self.zone)))
        if written_in(history, self.zone):
            return history.continued_in(self.zone, instants)
        return history.continued(naive_datetimes(instants + history.offset // MICROSECOND))


def midnights(opens: Instants, zone: tzinfo) -> Instants:
    """The starts of the days of `opens` on the clock of `zone`."""
    starts: Instants = opens - local_microseconds(opens, zone) % _DAY
    return starts


def _day_of_bar(local: Instants, ends: bool) -> Instants:
    """Times on the days of daily bars: 00:00 that ends a bar is one of the day before."""
    return local - 1 if ends and local[-1] % _DAY == 0 else local


def _phases(clock: Hours, instants: Instants, length: int) -> list[int]:
    """Where on the clock bars may begin: at full steps, or where the first timestamps lie.

    In the order of the history, so that a longer one has the same first.
    """
    at = np.clip(np.searchsorted(clock.opens, instants, side="right") - 1, 0, None)
    phases, first = np.unique((instants - clock.midnights[at]) % length, return_index=True)
    return list(dict.fromkeys([0, *phases[np.argsort(first)][:PHASES].tolist()]))
