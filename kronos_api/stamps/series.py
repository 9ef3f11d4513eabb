"""Stamps as text and as numbers.

Order is that of instants; the model sees the wall clock as written. What is read of a stamp
goes down to the microsecond, further digits are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.stamps.refusal import Breach, Refusal

FIRST_YEAR: Final = 1700
LAST_YEAR: Final = 2200
FORM: Final = f"an ISO 8601 time stamp of the years {FIRST_YEAR} to {LAST_YEAR}"

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

    def write(self, wall: datetime) -> str:
        """`wall` in this style, with the time of day or seconds added where they are needed."""
        midnight = not (wall.hour or wall.minute or wall.second or wall.microsecond)
        if self.separator is None and midnight:
            return f"{wall:%Y-%m-%d}"
        seconds = self.seconds or wall.second or wall.microsecond
        text = wall.isoformat(self.separator or "T", "seconds" if seconds else "minutes")
        digits = self.digits or (6 if wall.microsecond else 0)
        if digits:
            text += "." + f"{wall.microsecond:06d}".ljust(digits, "0")[:digits]
        return text + self.zone


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """Stamps of one series, in the order given.

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

    def continued(self, walls: Sequence[datetime]) -> Stamps:
        """Stamps with the wall clocks `walls`, in the style and at the offset of the last one."""
        return Stamps(
            texts=[self.style.write(wall) for wall in walls],
            walls=walls,
            instants=microseconds(walls) - (self.offset or timedelta()) // _MICROSECOND,
            offset=self.offset,
            style=self.style,
        )


def microseconds(walls: Sequence[datetime]) -> Instants:
    """Naive wall clocks as microseconds since 1970, as if they were UTC: int64 [n]."""
    # NumPy's own conversion of datetimes takes ten times as long.
    return np.array([(wall - _EPOCH) // _MICROSECOND for wall in walls], dtype=np.int64)


def parse_stamps(texts: Sequence[str], field: str, *, aware: bool | None = None) -> Stamps:
    """Read `texts`, which must not be empty.

    All or none must have an offset: as `aware` says, else as the first has. Raises `Refusal`
    that names `field` for texts that are no stamps, mixed with and without offset, or not
    strictly ascending.
    """
    walls, zones, breaches = [], [], []
    offsets: dict[str, timedelta | None] = {}
    match = None
    for index, text in enumerate(texts):
        match = _STAMP.fullmatch(text)
        wall = None if match is None else _wall(match)
        if match is None or wall is None:
            breaches.append(Breach(field, FORM, index))
            continue
        zone = match[4] or ""
        if zone not in offsets:
            offsets[zone] = _offset(zone)
        walls.append(wall)
        zones.append(zone)
    if breaches:
        raise Refusal(breaches)

    expected = bool(zones[0]) if aware is None else aware
    if odd := [index for index, zone in enumerate(zones) if bool(zone) != expected]:
        rule = f"{'with' if expected else 'without'} an offset, as the stamps before it"
        raise Refusal([Breach(field, rule, index) for index in odd])

    shifts = {zone: (offset or timedelta()) // _MICROSECOND for zone, offset in offsets.items()}
    instants = microseconds(walls) - np.array([shifts[zone] for zone in zones], dtype=np.int64)
    if (disorder := np.flatnonzero(np.diff(instants) <= 0) + 1).size:
        raise Refusal([Breach(field, "after the one before it", int(at)) for at in disorder])

    assert match is not None
    separator, seconds, fraction, zone = match.groups()
    style = Style(separator, seconds is not None, len(fraction or ""), zone or "")
    return Stamps(texts, walls, instants, offsets[zones[-1]], style)


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


def _offset(zone: str) -> timedelta | None:
    """Of "Z", "+01", "+0100" or "+01:00"; None for ""."""
    if not zone:
        return None
    if zone in "Zz":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    size = timedelta(hours=hours, minutes=minutes)
    return -size if zone[0] == "-" else size
