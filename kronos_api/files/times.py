"""Time stamps as data sources write them, turned into ISO 8601."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from kronos_api.errors import InvalidInput
from kronos_api.timeseries import is_timestamp

EXAMPLE: Final = "2025-06-02T09:30:00Z or 2025-06-02 09:30"
EPOCH_DIGITS: Final = {10: 1, 13: 1_000, 16: 1_000_000, 19: 1_000_000_000}
"""Digits of an epoch of 2001 to 2286, and its units in a second."""

_CLOCK = r"(?:[T ](\d{1,2}):(\d\d)(?::(\d\d)(\.\d+)?)? ?([AaPp][Mm])?)?"
_ZONE = r" ?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
_YEAR_FIRST = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_CLOCK}{_ZONE}", re.ASCII)
_YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){_CLOCK}{_ZONE}", re.ASCII)
_COMPACT = re.compile(rf"(\d{{4}})(\d\d)(\d\d)(?:[T ]?(\d\d):?(\d\d):?(\d\d)?)?{_ZONE}", re.ASCII)
_CHINESE = re.compile(r"(\d{4})年(\d{1,2})月(\d{1,2})日")
_NAMED: Final = ("%b %d, %Y", "%d-%b-%Y", "%d %b %Y", "%d-%b-%y", "%B %d, %Y")
_NAMED_CLOCKS: Final = ("", " %H:%M:%S", " %H:%M", " %I:%M %p")


class Unreadable(Exception):
    """No known form reads a cell; `index` is its row."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


def to_iso(cells: Sequence[str], form: str | None = None) -> list[str]:
    """`cells` as ISO 8601 text, by `form` (as strptime takes it) or by one form that fits all.

    Epochs become UTC. Raises `Unreadable`, and `InvalidInput` where day and month cannot be told
    apart.
    """
    if form is not None:
        return _each(cells, lambda cell: _by_form(cell, form))
    if all(map(is_timestamp, cells)):
        return list(cells)
    if all(cell.isdigit() and len(cell) in EPOCH_DIGITS for cell in cells):
        return [_epoch(cell) for cell in cells]
    cells = [_CHINESE.sub(r"\1-\2-\3", cell) for cell in cells]
    for pattern, read in ((_YEAR_FIRST, _year_first), (_COMPACT, _compact)):
        if pattern.fullmatch(cells[-1]):
            return _matching(cells, pattern, read)
    if _YEAR_LAST.fullmatch(cells[-1]):
        day_first = _day_first(cells)
        return _matching(cells, _YEAR_LAST, lambda match: _year_last(match, day_first))
    for date in _NAMED:
        for clock in _NAMED_CLOCKS:
            try:
                return _each(cells, lambda cell, form=date + clock: _by_form(cell, form))  # type: ignore[misc]
            except Unreadable:
                continue
    # The last says most of what the file holds; the first unreadable one is told by its line.
    raise Unreadable(next((at for at, cell in enumerate(cells) if not _known(cell)), 0))


def _known(cell: str) -> bool:
    return any(pattern.fullmatch(cell) for pattern in (_YEAR_FIRST, _COMPACT, _YEAR_LAST))


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
    """ISO 8601 of the parts; raises `ValueError` for a day or time that does not exist."""
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
    return text + ("Z" if zone in ("UTC", "GMT", "z") else zone or "")


def _day_first(cells: Sequence[str]) -> bool:
    """Whether the day comes before the month; a full stop between them says so as well."""
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
