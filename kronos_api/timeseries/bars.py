"""Bars of one length in the sessions of an exchange, numbered without a gap.

Where the bars of a day begin differs between data sources; `Scheme` names the differences. With a
scheme, the label of each bar and the number of each label are computed directly, so a series goes
on at the next number and a gap is a number that is missing.

The scheme of a history is the one that explains it best: most timestamps are labels of its bars,
and fewest labels are missing between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.timeseries.timestamps import Instants

MISSED: Final = 2
"""Labels that are missing between two timestamps count up to so many: a gap says little."""


class BarLabel(StrEnum):
    """Which end of its bar a timestamp names."""

    OPEN = "open"
    CLOSE = "close"


class Anchor(StrEnum):
    """Where the bars begin."""

    SEGMENT = "segment"
    """At each opening, also after a lunch break."""
    SESSION = "session"
    """At the opening of the day; a bar may span the lunch break."""
    CLOCK = "clock"
    """On the clock, such as at full hours; the first and last bar of a session may be short."""


class Stub(StrEnum):
    """What becomes of a bar that is cut short by an opening or closing."""

    EDGE = "edge"
    """Labelled with that opening or closing."""
    WHOLE = "whole"
    """Labelled as if it were not cut short."""
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a source makes bars.

    `phase` is the local time of day, modulo the bar's length, at which bars on the clock begin, in
    microseconds.
    """

    label: BarLabel
    anchor: Anchor = Anchor.SEGMENT
    phase: int = 0
    head: Stub = Stub.EDGE
    tail: Stub = Stub.EDGE

    @property
    def full_steps(self) -> bool:
        """Whether a bar that is cut short has the label of a full one, outside the session."""
        return Stub.WHOLE in (self.head, self.tail)


@dataclass(frozen=True, slots=True, eq=False)
class Hours:
    """Trading hours in order, each int64 [n], in microseconds since 1970 UTC.

    Trade pauses from `pauses` to `resumes`, both equal to `closes` where it does not. `midnights`
    are the starts of the days, on the clock that the bars go by.
    """

    opens: Instants
    pauses: Instants
    resumes: Instants
    closes: Instants
    midnights: Instants

    def around(self, first: int, last: int | None = None) -> Hours:
        """The hours of two sessions before instant `first` to two after `last`, or to the end."""
        start = max(0, int(np.searchsorted(self.opens, first)) - 2)
        end = None if last is None else int(np.searchsorted(self.opens, last)) + 2
        return Hours(*(getattr(self, name)[start:end] for name in self.__slots__))

    def inside(self, instants: Instants, label: BarLabel) -> NDArray[np.bool_]:
        """Whether bars that begin (or, labelled by their close, end) then are traded."""
        if label is BarLabel.OPEN:
            at = np.searchsorted(self.opens, instants, side="right") - 1
            traded = instants < self.closes[at]
            traded &= (instants < self.pauses[at]) | (instants >= self.resumes[at])
        else:
            at = np.searchsorted(self.opens, instants, side="left") - 1
            traded = instants <= self.closes[at]
            traded &= (instants <= self.pauses[at]) | (instants > self.resumes[at])
        return traded & (at >= 0)


class Bars:
    """The bars of `length` microseconds that `scheme` makes of `hours`, numbered from 0."""

    def __init__(self, hours: Hours, length: int, scheme: Scheme) -> None:
        self.scheme = scheme
        self._length = length
        self._opens, self._closes = hours.opens, hours.closes
        self._pause = hours.pauses - hours.opens
        self._paused = hours.resumes - hours.pauses
        self._traded = hours.closes - hours.opens - self._paused
        # How long before the opening the first bar would have begun on the clock.
        self._lead = (
            (hours.opens - hours.midnights - scheme.phase) % length
            if scheme.anchor is Anchor.CLOCK
            else np.zeros_like(hours.opens)
        )
        whole, rest = np.divmod(self._traded + self._lead, length)
        self._last = whole + ((rest > 0) & (scheme.tail is not Stub.ABSENT))
        self._first = ((self._lead > 0) & (scheme.head is Stub.ABSENT)).astype(np.int64)
        counts = np.maximum(self._last - self._first, 0)
        self._before = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._before[-1])

    def labels(self, numbers: Instants) -> Instants:
        """The labels of bars `numbers`, each from 0 up to the length."""
        at = np.searchsorted(self._before, numbers, side="right") - 1
        at = np.minimum(at, len(self._opens) - 1)
        nth = numbers - self._before[at] + self._first[at]
        # In time traded since the opening.
        if self.scheme.label is BarLabel.OPEN:
            traded = nth * self._length - self._lead[at]
            if self.scheme.head is not Stub.WHOLE:
                traded = np.maximum(traded, 0)
            after_pause = traded >= self._pause[at]
        else:
            traded = (nth + 1) * self._length - self._lead[at]
            if self.scheme.tail is not Stub.WHOLE:
                traded = np.minimum(traded, self._traded[at])
            after_pause = traded > self._pause[at]
        labels: Instants = self._opens[at] + traded + np.where(after_pause, self._paused[at], 0)
        return labels

    def numbers(self, labels: Instants) -> Instants:
        """The number of each label; of other instants, that of a bar close by."""
        early = self._lead if self.scheme.head is Stub.WHOLE else 0
        side = "right" if self.scheme.label is BarLabel.OPEN else "left"
        at = np.searchsorted(self._opens - early, labels, side=side) - 1  # type: ignore[call-overload]
        at = np.clip(at, 0, None)
        since = labels - self._opens[at]
        traded = since - np.clip(since - self._pause[at], 0, self._paused[at])
        nth = traded + self._lead[at]
        if self.scheme.label is BarLabel.OPEN:
            nth = nth // self._length
        else:
            nth = -(-nth // self._length) - 1
        nth = np.clip(nth, self._first[at], np.maximum(self._last[at] - 1, self._first[at]))
        numbers: Instants = self._before[at] + nth - self._first[at]
        return np.minimum(numbers, len(self) - 1)

    def fitting(self, instants: Instants) -> NDArray[np.bool_]:
        """Whether each of `instants` is a label."""
        if not len(self):
            return np.zeros(len(instants), dtype=np.bool_)
        fitting: NDArray[np.bool_] = self.labels(self.numbers(instants)) == instants
        return fitting

    def following(self, last: int, horizon: int) -> Instants:
        """The labels of the next `horizon` bars after instant `last`, or as many as there are."""
        number = int(self.numbers(np.array([last]))[0]) if len(self) else 0
        numbers = np.arange(number, min(number + horizon + 2, len(self)))
        labels = self.labels(numbers)
        return labels[labels > last][:horizon]

    def score(self, history: Instants) -> tuple[int, float]:
        """How well these bars explain `history`, larger is better.

        The number of timestamps that are labels, and then minus the number of labels that are
        missing between them.
        """
        fitting = self.fitting(history)
        if not fitting.any() or not self._separate():
            return 0, 0.0
        numbers = self.numbers(history[fitting])
        missing = np.minimum(np.diff(numbers) - 1, MISSED).sum()
        # A history that begins with the second bar of a day may have no first one on any day.
        at = int(np.searchsorted(self._before, numbers[0], side="right")) - 1
        short_head = self._lead[at] > 0 and not self._first[at]
        starts_late = short_head and numbers[0] - self._before[at] == 1
        return int(fitting.sum()), -float(missing + starts_late / 2)

    def _separate(self) -> bool:
        """Whether no label lies beyond the session before or after its own.

        A full step on the clock can span two sessions, whose labels would be mixed.
        """
        first = self._before[(self._before > 0) & (self._before < len(self))]
        at, before = (
            np.searchsorted(self._before, numbers, side="right") - 1
            for numbers in (first, first - 1)
        )
        late = self.labels(first - 1) > self._opens[at]
        early = self.labels(first) < self._closes[before]
        return not (late | early).any()


def schemes(label: BarLabel, phases: list[int], pauses: bool) -> Iterator[Scheme]:
    """The schemes of bars labelled with `label`, the commonest first."""
    opened = label is BarLabel.OPEN
    # Short last bars differ by their closing, which only labels of closings show.
    tails = (Stub.EDGE, Stub.ABSENT) if opened else (Stub.EDGE, Stub.WHOLE, Stub.ABSENT)
    heads = (Stub.EDGE, Stub.WHOLE, Stub.ABSENT) if opened else (Stub.EDGE, Stub.ABSENT)
    for anchor in (Anchor.SEGMENT, Anchor.SESSION) if pauses else (Anchor.SEGMENT,):
        for tail in tails:
            yield Scheme(label, anchor, tail=tail)
    for phase in phases:
        for head in heads:
            for tail in tails:
                yield Scheme(label, Anchor.CLOCK, phase, head, tail)
