"""Timestamps as text and as numbers.

Order is that of instants; the model sees the wall clock as written. What is read of a stamp
goes down to the microsecond, further digits are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.violations import InvalidFields, Violation

FIRST_YEAR: Final = 1700
LAST_YEAR: Final = 2200
FORM: Final = (
    "an ISO 8601 time stamp such as 2025-06-02T09:30:00Z, 2025-06-02 09:30 or 2025-06-02, of the"
    f" years {FIRST_YEAR} to {LAST_YEAR}"
)
NEWEST_FIRST: Final = "oldest first; these are newest first"

Instants = NDArray[np.int64]

_STAMP = re.compile(
    # 1: separator, 2: seconds, 3: fraction, 4: offset
    r"\d{4}-\d\d-\d\d"
    r"(?:([Tt ])(?:[01]\d|2[0-3]):[0-5]\d(?::([0-5]\d)(?:\.(\d{1,9}))?)?"
    r"([Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1)
# What each digit of a stamp counts for: year, month, day, hour, minute, second, microsecond.
_PLACES: Final = np.array(
    [
        [10 ** (end - at - 1) if begin <= at < end else 0 for at in range(20)]
        for begin, end in pairwise((0, 4, 6, 8, 10, 12, 14, 20))
    ]
).T


@dataclass(frozen=True, slots=True)
class Style:
    """How one stamp was written: enough to write others like it."""

    separator: str | None
    """Between date and time; None: date only."""
    seconds: bool
    digits: int
    """Of the fraction of a second."""
    zone: str
    """The offset as written: "", "Z", "+01:00", ..."""

    def holding(self, walls: Sequence[datetime]) -> Style:
        """This style, with time of day, seconds and fraction if one of `walls` needs them.

        Timestamps of one series have one form: many readers take it from the first.
        """
        clocks = {wall.time() for wall in walls}
        separator = self.separator or ("T" if any(clocks - {time.min}) else None)
        seconds = self.seconds or any(clock.second or clock.microsecond for clock in clocks)
        digits = self.digits or (6 if any(clock.microsecond for clock in clocks) else 0)
        return Style(separator, seconds, digits, self.zone)

    def write(self, wall: datetime) -> str:
        """`wall` in this style, which must hold it."""
        if self.separator is None:
            return f"{wall:%Y-%m-%d}"
        text = wall.isoformat(self.separator, "seconds" if self.seconds else "minutes")
        if self.digits:
            text += "." + f"{wall.microsecond:06d}".ljust(self.digits, "0")[: self.digits]
        return text + self.zone


@dataclass(frozen=True, slots=True, eq=False)
class Timestamps:
    """Timestamps of one series, in the order given.

    `walls` are naive wall clocks as written; `instants` are microseconds since 1970, int64 [n],
    where stamps without an offset count as UTC. `offset` and `style` are the last stamp's.
    """

    texts: Sequence[str]
    walls: Sequence[datetime]
    instants: Instants
    offset: timedelta | None
    style: Style

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def aware(self) -> bool:
        """Whether the stamps have offsets."""
        return self.offset is not None

    def continued(self, walls: Sequence[datetime]) -> Timestamps:
        """Timestamps of the wall clocks `walls`, in the style and at the offset of the last."""
        style = self.style.holding(walls)
        return Timestamps(
            texts=[style.write(wall) for wall in walls],
            walls=walls,
            instants=microseconds(walls) - (self.offset or timedelta()) // _MICROSECOND,
            offset=self.offset,
            style=style,
        )


def microseconds(walls: Sequence[datetime]) -> Instants:
    """Naive wall clocks as microseconds since 1970, as if they were UTC: int64 [n]."""
    # NumPy's own conversion of datetimes takes ten times as long.
    return np.array([(wall - _EPOCH) // _MICROSECOND for wall in walls], dtype=np.int64)


def is_timestamp(text: str) -> bool:
    """Whether `text` has the form that `parse_timestamps` takes."""
    return _STAMP.fullmatch(text) is not None


def parse_timestamps(texts: Sequence[str], field: str, *, aware: bool | None = None) -> Timestamps:
    """Read `texts`, which must not be empty.

    All or none must have an offset: as `aware` says, else as the first has. Raises `InvalidFields`
    that names `field` for texts that are no stamps, mixed with and without offset, or not
    strictly ascending.
    """
    last = _STAMP.fullmatch(texts[-1])
    walls = None if last is None else _alike(texts, last)
    zones: Sequence[str]
    if last is None or walls is None:
        walls, zones = _one_by_one(texts, field)
    else:
        zones = [_zone(last)] * len(texts)

    expected = bool(zones[0]) if aware is None else aware
    if odd := [index for index, zone in enumerate(zones) if bool(zone) != expected]:
        rule = f"{'with' if expected else 'without'} an offset, as the stamps before it"
        raise InvalidFields([Violation(field, rule, index) for index in odd])

    offsets = {zone: _offset(zone) for zone in set(zones)}
    shifts = {zone: (offset or timedelta()) // _MICROSECOND for zone, offset in offsets.items()}
    instants = walls - np.array([shifts[zone] for zone in zones], dtype=np.int64)
    if (disorder := np.flatnonzero(np.diff(instants) <= 0) + 1).size:
        if len(texts) > 2 and (np.diff(instants) < 0).all():
            raise InvalidFields([Violation(field, NEWEST_FIRST)])
        raise InvalidFields(
            [Violation(field, "after the one before it", int(at)) for at in disorder]
        )

    assert last is not None
    separator, seconds, fraction, _ = last.groups()
    style = Style(separator, seconds is not None, len(fraction or ""), zones[-1])
    return Timestamps(texts, walls.view("M8[us]").tolist(), instants, offsets[zones[-1]], style)


def _alike(texts: Sequence[str], last: re.Match[str]) -> Instants | None:
    """Wall clocks, in microseconds, of texts that differ from the last in digits of time only.

    None if there is one that does not, or that is no stamp: read one by one they tell which.
    """
    form = last.string + "\n"
    joined = ("\n".join(texts) + "\n").encode(errors="replace")
    if len(joined) != len(texts) * len(form):
        return None
    rows = np.frombuffer(joined, np.uint8).reshape(len(texts), len(form))
    clock = np.array([char.isdigit() for char in form])
    clock[len(form) - 1 - len(_zone(last)) :] = False
    digits = rows[:, clock] - np.uint8(ord("0"))
    if (digits > 9).any() or (rows[:, ~clock] != rows[-1, ~clock]).any():
        return None
    numbers = digits[:, : len(_PLACES)] @ _PLACES[: digits.shape[1]]
    year, month, day, hour, minute, second, micro = numbers.T
    months = (12 * (year - 1970) + month - 1).view("M8[M]")
    days = months.astype("M8[D]") + (day - 1).astype("m8[D]")
    possible = (year >= FIRST_YEAR) & (year <= LAST_YEAR) & (month >= 1) & (month <= 12)
    # A day that does not exist is one of another month.
    possible &= (days.astype("M8[M]") == months) & (hour < 24) & (minute < 60) & (second < 60)
    if not possible.all():
        return None
    seconds = ((days.astype(np.int64) * 24 + hour) * 60 + minute) * 60 + second
    instants: Instants = seconds * 1_000_000 + micro
    return instants


def _one_by_one(texts: Sequence[str], field: str) -> tuple[Instants, list[str]]:
    """Wall clocks in microseconds, and offsets as written; raises `InvalidFields`."""
    walls, zones, violations = [], [], []
    for index, text in enumerate(texts):
        match = _STAMP.fullmatch(text)
        wall = None if match is None else _wall(match)
        if match is None or wall is None:
            violations.append(Violation(field, FORM, index))
            continue
        walls.append(wall)
        zones.append(_zone(match))
    if violations:
        raise InvalidFields(violations)
    return microseconds(walls), zones


def _wall(match: re.Match[str]) -> datetime | None:
    """The wall clock of a stamp; None for a day that does not exist or a far year."""
    try:
        wall = datetime.fromisoformat(match.string[: 19 if match[2] else 16])
    except ValueError:
        return None
    if not FIRST_YEAR <= wall.year <= LAST_YEAR:
        return None
    if match[3]:
        wall = wall.replace(microsecond=int(match[3][:6].ljust(6, "0")))
    return wall


def _zone(match: re.Match[str]) -> str:
    """The offset as written; "" where there is none."""
    return match[4] or ""


def _offset(zone: str) -> timedelta | None:
    """Of "Z", "+01", "+0100" or "+01:00"; None for ""."""
    if not zone:
        return None
    if zone in "Zz":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    size = timedelta(hours=hours, minutes=minutes)
    return -size if zone[0] == "-" else size
