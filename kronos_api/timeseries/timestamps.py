"""Timestamps of one series, and how others like them are written.

Order is that of instants; the model sees the local time as written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Instants = NDArray[np.int64]
"""Microseconds since 1970-01-01 UTC, int64 [n]."""

MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Style:
    """The form of one timestamp: enough to write others like it."""

    separator: str | None
    """Between date and time; None: date only."""
    seconds: bool
    digits: int
    """Of the fraction of a second."""
    zone: str
    """The offset as written: "", "Z", "+01:00", ..."""
    compact: bool = False
    """Whether date and time have no separators of their own: 20250602T093000Z."""

    def holding(self, datetimes: Sequence[datetime]) -> Style:
        """This style, with time of day, seconds and fraction if one of `datetimes` needs them.

        Timestamps of one series have one form: many readers take it from the first.
        """
        clocks = {naive.time() for naive in datetimes}
        separator = self.separator or ("T" if any(clocks - {time.min}) else None)
        seconds = self.seconds or any(clock.second or clock.microsecond for clock in clocks)
        digits = self.digits or (6 if any(clock.microsecond for clock in clocks) else 0)
        return Style(separator, seconds, digits, self.zone, self.compact)

    def write(self, naive: datetime, offset: timedelta | None = None) -> str:
        """`naive` in this style, which must hold it; at the style's own offset if none is given."""
        dash, colon = ("", "") if self.compact else ("-", ":")
        text = f"{naive:%Y{dash}%m{dash}%d}"
        if self.separator is None:
            return text
        text += f"{self.separator}{naive:%H{colon}%M}"
        if self.seconds:
            text += f"{colon}{naive:%S}"
        if self.digits:
            text += "." + f"{naive.microsecond:06d}".ljust(self.digits, "0")[: self.digits]
        return text + (self.zone if offset is None else self._offset(offset))

    def _offset(self, offset: timedelta) -> str:
        """`offset` as the style writes it, with minutes where it has some."""
        if not offset and self.zone in ("Z", "z"):
            return self.zone
        sign = "-" if offset < timedelta() else "+"
        hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
        if len(self.zone) == 3 and not minutes:
            return f"{sign}{hours:02d}"
        colon = "" if len(self.zone) == 5 or (self.compact and ":" not in self.zone) else ":"
        return f"{sign}{hours:02d}{colon}{minutes:02d}"


@dataclass(frozen=True, slots=True, eq=False)
class Timestamps:
    """Timestamps of one series, in the order given.

    `datetimes` are naive: the local times as written; `local` are the same in microseconds since
    1970, int64 [n]. `instants` are int64 [n], where timestamps without an offset count as UTC.
    `offset` and `style` are those of the last.
    """

    texts: Sequence[str]
    datetimes: Sequence[datetime]
    local: Instants
    instants: Instants
    offset: timedelta | None
    style: Style

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def aware(self) -> bool:
        """Whether the timestamps have offsets."""
        return self.offset is not None

    @property
    def offsets(self) -> Instants:
        """The offset of each timestamp in microseconds, int64 [n]; 0 where they have none."""
        offsets: Instants = self.local - self.instants
        return offsets

    def continued(self, datetimes: Sequence[datetime]) -> Timestamps:
        """Timestamps at naive `datetimes`, in the style and at the offset of the last."""
        style = self.style.holding(datetimes)
        local = microseconds(datetimes)
        return Timestamps(
            texts=[style.write(naive) for naive in datetimes],
            datetimes=datetimes,
            local=local,
            instants=local - (self.offset or timedelta()) // MICROSECOND,
            offset=self.offset,
            style=style,
        )

    def continued_in(self, zone: tzinfo, instants: Instants) -> Timestamps:
        """Timestamps at `instants`, in the style of the last and at the offset of `zone` then."""
        local = local_microseconds(instants, zone)
        datetimes = naive_datetimes(local)
        style = self.style.holding(datetimes)
        offsets = (local - instants).tolist()
        return Timestamps(
            texts=[
                style.write(naive, offset * MICROSECOND)
                for naive, offset in zip(datetimes, offsets, strict=True)
            ],
            datetimes=datetimes,
            local=local,
            instants=instants,
            offset=offsets[-1] * MICROSECOND,
            style=style,
        )


def microseconds(datetimes: Sequence[datetime]) -> Instants:
    """Naive `datetimes` as microseconds since 1970, as if they were UTC: int64 [n]."""
    # NumPy's own conversion of datetimes takes ten times as long.
    return np.array([(naive - _EPOCH) // MICROSECOND for naive in datetimes], dtype=np.int64)


def naive_datetimes(instants: Instants) -> list[datetime]:
    """The naive datetimes of `instants`, as UTC has them."""
    datetimes: list[datetime] = instants.view("M8[us]").tolist()
    return datetimes


def local_microseconds(instants: Instants, zone: tzinfo) -> Instants:
    """The local times of `instants` in `zone`, as microseconds since 1970: int64 [n]."""
    index = pd.DatetimeIndex(instants.view("M8[us]"), tz="UTC").tz_convert(zone).tz_localize(None)
    return index.to_numpy(dtype="M8[us]").astype(np.int64)


def instants_of_local(local: Instants, zone: tzinfo) -> Instants:
    """The instants at which clocks in `zone` show times `local`: int64 [n].

    The first of two where the clock was put back; where it was put forward, the skipped times
    count as those after the change.
    """
    index = pd.DatetimeIndex(local.view("M8[us]"))
    first = np.ones(len(index), dtype=np.bool_)
    aware = index.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    return aware.tz_convert("UTC").tz_localize(None).to_numpy(dtype="M8[us]").astype(np.int64)
