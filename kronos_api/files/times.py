"""Timestamps as data sources write them, converted to ISO 8601."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from kronos_api.errors import InvalidInput
from kronos_api.timeseries import is_timestamp

EXAMPLE: Final = "2025-06-02T09:30:00Z or 2025-06-02 09:30"
EPOCH_DIGITS: Final = {10: 1, 13: 1_000, 16: 1_000_000, 19: 1_000_000_000}
"""Digits of an epoch of 2001 to 2286, and its units in a second."""
SERIAL_DAYS: Final = (20_000, 80_000)
"""Spreadsheets' serial numbers of the days of 1954 to 2119."""

_CLOCK = r"(?:[T ](\d{1,2}):(\d\d)(?::(\d\d)(\.\d+)?)? ?([AaPp][Mm])?)?"
_ZONE = r" ?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?|[A-Z]\w+(?:/\w+)+)?"
_YEAR_FIRST = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_CLOCK}{_ZONE}", re.ASCII)
_YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){_CLOCK}{_ZONE}", re.ASCII)
_COMPACT = re.compile(rf"(\d{{4}})(\d\d)(\d\d)(?:[T ]?(\d\d):?(\d\d):?(\d\d)?)?{_ZONE}", re.ASCII)
_SHORT_YEAR = re.compile(rf"(\d\d?)([-/.])(\d\d?)\2(\d\d){_CLOCK}{_ZONE}", re.ASCII)
_ASIAN = re.compile(
    r"(\d{4})(?:年|년|[-.](?= )) ?(\d{1,2})(?:月|월|[-.](?= )) ?(\d{1,2})(?:日|일|\.)?"
)
_MINGUO = re.compile(r"(1\d\d)/(\d\d)/(\d\d)", re.ASCII)
_WEEKDAY = re.compile(r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +(?=\w)", re.IGNORECASE)
_WHOLE = re.compile(r"(\d+)\.0+", re.ASCII)
_SERIAL = re.compile(r"\d{5}(\.\d+)?", re.ASCII)
_CLOCK_ALONE = re.compile(r"\d{1,2}:\d\d(:\d\d)?", re.ASCII)
_NAMED: Final = (
    *("%b %d, %Y", "%d-%b-%Y", "%d %b %Y", "%d-%b-%y", "%B %d, %Y", "%d %B %Y", "%b %d %Y"),
    *("%d/%b/%Y", "%Y-%b-%d", "%d-%B-%Y", "%d %b, %Y"),
)
_NAMED_CLOCKS: Final = ("", " %H:%M:%S", " %H:%M", " %I:%M %p")


class Unreadable(Exception):
    """No known form fits the cell in row `index`; `hint` is the likely remedy."""

    def __init__(self, index: int, hint: str = "") -> None:
        super().__init__(index)
        self.index = index
        self.hint = hint


def to_iso(cells: Sequence[str], form: str | None = None) -> list[str]:
    """`cells` as ISO 8601 text, by `form` (as strptime takes it) or by one form that fits all.

    Epochs become UTC. Raises `Unreadable`, and `InvalidInput` where day and month cannot be told
    apart.
    """
    if form is not None:
        return _each(cells, lambda cell: _by_form(cell, form))
    if all(map(is_timestamp, cells)):
        return list(cells)
    whole = [match[1] if (match := _WHOLE.fullmatch(cell)) else cell for cell in cells]
    if all(cell.isdigit() and len(cell) in EPOCH_DIGITS for cell in whole):
        return [_epoch(cell) for cell in whole]
    if all(map(_is_serial, cells)):
        return [_from_serial(cell) for cell in cells]
    cells = [_WEEKDAY.sub("", _ASIAN.sub(r"\1-\2-\3", _western(cell)), count=1) for cell in cells]
    for pattern, read in ((_YEAR_FIRST, _year_first), (_COMPACT, _compact)):
        if pattern.fullmatch(cells[-1]):
            return _matching(cells, pattern, read)
    if _SHORT_YEAR.fullmatch(cells[-1]):
        return _short_years(cells)
    if _YEAR_LAST.fullmatch(cells[-1]):
        day_first = _day_first(cells)
        return _matching(cells, _YEAR_LAST, lambda match: _year_last(match, day_first))
    for date in _NAMED:
        for clock in _NAMED_CLOCKS:
            try:
                return _each(cells, lambda cell, form=date + clock: _by_form(cell, form))  # type: ignore[misc]
            except Unreadable:
                continue
    index = next((at for at, cell in enumerate(cells) if not _known(cell)), 0)
    alone = "; it has a time of day alone, and the date is needed with it"
    raise Unreadable(index, alone if _CLOCK_ALONE.fullmatch(cells[index]) else "")


def looks_like_time(cell: str) -> bool:
    """Whether `cell` is a timestamp of a form that is hardly anything else."""
    return is_timestamp(cell) or bool(
        re.search(r"\d[-/.:年년]", cell) and _known(_ASIAN.sub(r"\1-\2-\3", cell))
    )


def _known(cell: str) -> bool:
    return any(pattern.fullmatch(cell) for pattern in (_YEAR_FIRST, _COMPACT, _YEAR_LAST))


def join_clocks(dates: Sequence[str], clocks: Sequence[str]) -> list[str]:
    """Date and time of day as one cell each; spreadsheets drop the leading zero of 093000."""
    width = 6 if max(map(len, clocks)) > 4 else 4
    padded = [clock.zfill(width) if clock.isdigit() else clock for clock in clocks]
    return [f"{date} {clock}".strip() for date, clock in zip(dates, padded, strict=True)]


def _western(cell: str) -> str:
    """Years of the Republic of China, such as 113/01/02, as those of the common era."""
    if match := _MINGUO.match(cell):
        return f"{int(match[1]) + 1911}/{match[2]}/{match[3]}{cell[match.end() :]}"
    return cell


def _is_serial(cell: str) -> bool:
    return bool(_SERIAL.fullmatch(cell)) and SERIAL_DAYS[0] <= float(cell) <= SERIAL_DAYS[1]


def _from_serial(cell: str) -> str:
    moment = datetime(1899, 12, 30) + timedelta(seconds=round(float(cell) * 86_400))
    return f"{moment:%Y-%m-%dT%H:%M:%S}" if "." in cell else f"{moment:%Y-%m-%d}"


def _short_years(cells: Sequence[str]) -> list[str]:
    """Dates with years of two digits, where one order of their parts alone gives a series."""
    possible = []
    for order in ("ymd", "dmy", "mdy"):
        with suppress(Unreadable):
            texts = _matching(cells, _SHORT_YEAR, partial(_short, order=order))
            steps = [later > earlier for earlier, later in pairwise(texts) if later != earlier]
            if steps and (all(steps) or not any(steps)):
                possible.append(texts)
    if len(possible) != 1:
        raise Unreadable(0, "; a year of two digits needs --time-format, such as %d.%m.%y")
    return possible[0]


def _short(match: re.Match[str], order: str) -> str:
    parts = dict(zip(order, (match[1], match[3], match[4]), strict=True))
    year = int(parts["y"])
    _, _, _, _, *rest = match.groups()
    century = 1900 if year > 69 else 2000
    return _joined(century + year, int(parts["m"]), int(parts["d"]), *rest)


def _each(cells: Sequence[str], read: Callable[[str], str]) -> list[str]:
    texts = []
    for index, cell in enumerate(cells):
        try:
            texts.append(read(cell))
        except (ValueError, OverflowError):
            raise Unreadable(index) from None
    return texts


def _matching(
    cells: Sequence[str], pattern: re.Pattern[str], read: Callable[[re.Match[str]], str]
) -> list[str]:
    def one(cell: str) -> str:
        match = pattern.fullmatch(cell)
        if match is None:
            raise ValueError
        return read(match)

    return _each(cells, one)


def _by_form(cell: str, form: str) -> str:
    moment = datetime.strptime(cell, form)
    return moment.date().isoformat() if _is_date(form) else moment.isoformat()


def _is_date(form: str) -> bool:
    return re.search("%[HIcXsf]", form) is None


def _epoch(cell: str) -> str:
    units = EPOCH_DIGITS[len(cell)]
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        seconds=int(cell) // units, microseconds=int(cell) % units * 1_000_000 // units
    )
    return moment.isoformat().replace("+00:00", "Z")


def _year_first(match: re.Match[str]) -> str:
    year, _, month, day, *rest = match.groups()
    return _joined(int(year), int(month), int(day), *rest)


def _year_last(match: re.Match[str], day_first: bool) -> str:
    one, _, two, year, *rest = match.groups()
    day, month = (one, two) if day_first else (two, one)
    return _joined(int(year), int(month), int(day), *rest)


def _compact(match: re.Match[str]) -> str:
    year, month, day, hour, minute, second, zone = match.groups()
    return _joined(int(year), int(month), int(day), hour, minute, second, None, None, zone)


def _joined(
    year: int,
    month: int,
    day: int,
    hour: str | None,
    minute: str | None,
    second: str | None,
    fraction: str | None,
    half: str | None,
    zone: str | None,
) -> str:
    """ISO 8601 of the parts; raises `ValueError` for a day, time or zone that does not exist."""
    if hour is None:
        return f"{datetime(year, month, day):%Y-%m-%d}"
    hours = int(hour)
    if half is not None:
        if not 1 <= hours <= 12:
            raise ValueError
        hours = hours % 12 + (12 if half.lower() == "pm" else 0)
    moment = datetime(year, month, day, hours, int(minute or 0), int(second or 0))
    text = f"{moment:%Y-%m-%dT%H:%M:%S}" if second is not None else f"{moment:%Y-%m-%dT%H:%M}"
    if fraction:
        text += fraction[:10]
    if zone and "/" in zone:
        try:
            return moment.replace(tzinfo=ZoneInfo(zone)).isoformat()
        except KeyError:
            raise ValueError from None
    return text + ("Z" if zone in ("UTC", "GMT", "z") else zone or "")


def _day_first(cells: Sequence[str]) -> bool:
    """Whether the day is before the month, as it is between full stops."""
    pairs = [
        (int(match[1]), int(match[3])) for cell in cells if (match := _YEAR_LAST.fullmatch(cell))
    ]
    first, second = max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    if first > 12 or second > 12:
        return first > 12
    if "." in cells[-1].split(" ")[0]:
        return True
    raise InvalidInput(
        f"has dates such as {cells[-1]} whose day and month cannot be told apart; give "
        "--time-format, such as %d/%m/%Y or %m/%d/%Y"
    )
