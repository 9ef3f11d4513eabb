"""Timestamps from text: ISO 8601, extended or compact, down to the microsecond.

Further digits are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import numpy as np

from kronos_api.timeseries.timestamps import MICROSECOND, Instants, Style, Timestamps, microseconds
from kronos_api.violations import InvalidFields, Violation

FIRST_YEAR: Final = 1700
LAST_YEAR: Final = 2200
FORM: Final = (
    "an ISO 8601 timestamp such as 2025-06-02T09:30:00Z, 2025-06-02 09:30-04:00, 20250602T093000Z"
    f" or 2025-06-02, of the years {FIRST_YEAR} to {LAST_YEAR}"
)
EPOCH_EXAMPLE: Final = "1748856600 (seconds) or 1748856600000 (ms) is 2025-06-02T09:30:00Z"
NEWEST_FIRST: Final = "oldest first; these are newest first"
ASCENDING: Final = "after the one before it"
CLOCK_PUT_BACK: Final = (
    f"{ASCENDING}, or give offsets: local times repeat an hour when the clock is put back, such as"
    " 2025-11-02T01:30:00-04:00 and 2025-11-02T01:30:00-05:00"
)

_TIMESTAMP = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:(?P<sep>[Tt ])(?P<clock>(?:[01]\d|2[0-3]):[0-5]\d)"
    r"(?::(?P<seconds>[0-5]\d)(?:\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>[Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)
_COMPACT = re.compile(
    r"(?P<date>\d{8})"
    r"(?:(?P<sep>[Tt ])(?P<clock>(?:[01]\d|2[0-3])[0-5]\d)"
    r"(?:(?P<seconds>[0-5]\d)(?:\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>[Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)
# What is added to the message for forms that are often tried.
_HINTS: Final = tuple(
    (re.compile(form), f"write {hint}")
    for form, hint in (
        (r"\d{9,19}(\.\d*)?", f"epoch numbers so: {EPOCH_EXAMPLE}"),
        (r".*\d ?(UTC|GMT)", "Z for UTC: 2025-06-02 09:30:00Z"),
        (r".*\d [+-]\d\d:?\d\d", "the offset without a space: 2025-06-02 09:30:00+08:00"),
        (r".*\d ?\[?[A-Za-z]+/[A-Za-z_/]+\]?", "the offset, not the zone: 2025-06-02 09:30-04:00"),
        (r"\d{1,2}[-/.]\d{1,2}[-/.]\d{4}.*", "the year first, with hyphens: 2025-06-02 09:30"),
        (r"\d{4}[/.]\d{1,2}[/.]\d{1,2}.*", "the date with hyphens and two digits each: 2025-06-02"),
    )
)
LONGEST: Final = 64
"""Characters of the longest text that is compared with forms of timestamps."""
_HOUR: Final = timedelta(hours=1) // MICROSECOND
_NIGHT: Final = 4
"""Clocks are changed before this hour."""
# What each digit of a timestamp counts for: year, month, day, hour, minute, second, microsecond.
_PLACES: Final = np.array(
    [
        [10 ** (end - at - 1) if begin <= at < end else 0 for at in range(20)]
        for begin, end in pairwise((0, 4, 6, 8, 10, 12, 14, 20))
    ]
).T


def is_timestamp(text: str) -> bool:
    """Whether `text` is a timestamp in the extended form of ISO 8601, with its separators."""
    return _TIMESTAMP.fullmatch(text) is not None


def parse_timestamps(texts: Sequence[str], field: str, *, aware: bool | None = None) -> Timestamps:
    """Read `texts`, which must not be empty.

    All or none must have an offset: as `aware` says, else as the first has. Raises `InvalidFields`
    that names `field` for texts that are no timestamps, mixed with and without offset, or not
    strictly ascending.
    """
    last = _match(texts[-1])
    local = None if last is None else _alike(texts, last)
    zones: Sequence[str]
    if last is None or local is None:
        local, zones = _one_by_one(texts, field)
    else:
        zones = [_zone(last)] * len(texts)

    expected = bool(zones[0]) if aware is None else aware
    if odd := [index for index, zone in enumerate(zones) if bool(zone) != expected]:
        rule = f"{'with' if expected else 'without'} an offset, as the timestamps before it"
        raise InvalidFields([Violation(field, rule, index) for index in odd])

    offsets = {zone: _offset(zone) for zone in set(zones)}
    shifts = {zone: (offset or timedelta()) // MICROSECOND for zone, offset in offsets.items()}
    instants = local - np.array([shifts[zone] for zone in zones], dtype=np.int64)
    datetimes: list[datetime] = local.view("M8[us]").tolist()
    if violations := list(_disorder(field, datetimes, instants, expected)):
        raise InvalidFields(violations)

    assert last is not None
    style = Style(
        separator=last["sep"],
        seconds=last["seconds"] is not None,
        digits=len(last["fraction"] or ""),
        zone=zones[-1],
        compact=last.re is _COMPACT,
    )
    return Timestamps(texts, datetimes, local, instants, offsets[zones[-1]], style)


def _match(text: str) -> re.Match[str] | None:
    if len(text) > LONGEST:  # a long text would hold up all threads
        return None
    return _TIMESTAMP.fullmatch(text) or _COMPACT.fullmatch(text)


def _disorder(
    field: str, datetimes: Sequence[datetime], instants: Instants, aware: bool
) -> Iterator[Violation]:
    """Violations of the ascending order."""
    steps = np.diff(instants)
    if len(steps) > 1 and (steps < 0).all():
        yield Violation(field, NEWEST_FIRST)
        return
    for at in np.flatnonzero(steps <= 0).tolist():
        later = datetimes[at + 1]
        put_back = not aware and later.hour < _NIGHT and steps[at] > -_HOUR
        # A series of dates has no clock to be put back.
        hint = put_back and any(naive.hour for naive in datetimes)
        yield Violation(field, CLOCK_PUT_BACK if hint else ASCENDING, at + 1)


def _alike(texts: Sequence[str], last: re.Match[str]) -> Instants | None:
    """Local times, in microseconds, of texts that differ from the last in digits of time only.

    None if one differs otherwise, or is no timestamp: read one by one they tell which.
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
    """Local times in microseconds, and offsets as written; raises `InvalidFields`."""
    datetimes, zones, violations = [], [], []
    for index, text in enumerate(texts):
        match = _match(text)
        naive = None if match is None else _datetime(match)
        if match is None or naive is None:
            violations.append(Violation(field, _rule(text), index))
            continue
        datetimes.append(naive)
        zones.append(_zone(match))
    if violations:
        raise InvalidFields(violations)
    return microseconds(datetimes), zones


def _rule(text: str) -> str:
    """What is accepted in place of `text`, which is none of it."""
    hints = (hint for form, hint in _HINTS if len(text) <= LONGEST and form.fullmatch(text))
    return "; ".join([FORM, *hints])


def _datetime(match: re.Match[str]) -> datetime | None:
    """The local time of a timestamp; None for a day that does not exist or a far year."""
    date, clock = match["date"].replace("-", ""), (match["clock"] or "00:00").replace(":", "")
    digits = date + clock + (match["seconds"] or "00")
    year = int(digits[:4])
    if not FIRST_YEAR <= year <= LAST_YEAR:
        return None
    month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(4, 14, 2))
    micro = int((match["fraction"] or "0")[:6].ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, second, micro)
    except ValueError:
        return None


def _zone(match: re.Match[str]) -> str:
    """The offset as written; "" where there is none."""
    return match["zone"] or ""


def _offset(zone: str) -> timedelta | None:
    """Of "Z", "+01", "+0100" or "+01:00"; None for ""."""
    if not zone:
        return None
    if zone in "Zz":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    size = timedelta(hours=hours, minutes=minutes)
    return -size if zone[0] == "-" else size
