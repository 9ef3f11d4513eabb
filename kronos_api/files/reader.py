"""Candles of one series from a file, and one line that says how it was understood."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.errors import InvalidInput
from kronos_api.files.columns import CLOCK, NAMES, TIME, Found, find, plain
from kronos_api.files.numbers import Decimal, find_decimal, parse_numbers
from kronos_api.files.table import SEPARATORS, Table, parse
from kronos_api.files.text import CSV, decode, decompress
from kronos_api.files.times import EXAMPLE, Unreadable, to_iso
from kronos_api.timeseries.features import FIELDS, PRICES

RATE: Final = 5.0
"""A turnover within this factor of volume times price is an amount; else it is a rate."""
LOT: Final = 100.0
"""Shares of a lot, in which Chinese sources give volume."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user said of the file; None: to be found out."""

    separator: str | None = None
    decimal: Decimal | None = None
    time_format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """Candles, oldest first: float64 [n] by field, ISO 8601 texts, and the line of each."""

    columns: dict[str, NDArray[np.float64]]
    timestamps: list[str]
    lines: list[int]
    time_name: str
    understood: str
    """One line on how the file was read."""


def read_candles(data: bytes, options: Options | None = None, last: int | None = None) -> Candles:
    """Read the file `data`: CSV of most forms, packed or not; Parquet and Feather by an extra.

    Of a longer file, only the `last` candles by time are returned. The rules of candles are the
    caller's to check. Raises `InvalidInput` that says what was found and which option changes it.
    """
    options = options or Options()
    data = decompress(data)
    notes = []
    if data[:4] in (b"PAR1", b"ARRO", b"FEA1"):
        table = _from_arrow(data)
        notes.append("Parquet" if data[:4] == b"PAR1" else "Feather")
    else:
        text, encoding = decode(data)
        table = parse(text, options.separator)
        if encoding != "utf-8":
            notes.append(encoding.upper())
        if table.separator != ",":
            notes.append(f"{SEPARATORS.get(table.separator, 'own')} separator")
    found = find(table.names, options.columns)
    if not table.rows:
        raise InvalidInput("has a header and no candles")
    _check_symbol(table, found)
    timestamps, table = _timestamps(table, found, options.time_format, last)
    names = [name for name in FIELDS if name in found.at]
    cells = [table.column(found.at[name]) for name in names]
    turnover = [] if found.turnover is None else [table.column(found.turnover)]
    decimal = options.decimal or find_decimal([*cells, *turnover], table.separator)
    if decimal == ",":
        notes.append("decimal comma")
    columns = {
        name: parse_numbers(column, decimal) for name, column in zip(names, cells, strict=True)
    }
    _use_ticks(table, columns, decimal, notes)
    if turnover:
        notes.append(_judge_turnover(columns, parse_numbers(turnover[0], decimal)))
    lines = table.lines
    if _newest_first(timestamps):
        columns = {name: column[::-1].copy() for name, column in columns.items()}
        timestamps, lines = timestamps[::-1], lines[::-1]
        notes.append("newest first, turned round")
    used = ", ".join(
        f"{name} from {table.names[at]!r}"
        for name, at in found.at.items()
        if table.names[at].lower() not in (name, *NAMES[TIME][:5])
    )
    parts = [f"read {len(lines)} rows", *notes, *([used] if used else [])]
    if last is not None and len(lines) > last:
        parts[0] += f", the last {last} used"
        columns = {name: column[-last:] for name, column in columns.items()}
        timestamps, lines = timestamps[-last:], lines[-last:]
    time_name = table.names[found.at[TIME]] or "the first column"
    return Candles(columns, timestamps, lines, time_name, ", ".join(parts))


def _check_symbol(table: Table, found: Found) -> None:
    if found.symbol is not None:
        symbols = sorted(set(table.column(found.symbol)))
        if len(symbols) > 1:
            raise InvalidInput(
                f"holds {len(symbols)} series in the column {table.names[found.symbol]!r} "
                f"({', '.join(symbols[:3])}{', ...' if len(symbols) > 3 else ''}): one is needed"
            )


def _use_ticks(
    table: Table, columns: dict[str, NDArray[np.float64]], decimal: Decimal, notes: list[str]
) -> None:
    """Take ticks for a volume of zeros, which MetaTrader writes for what no exchange trades."""
    known = [plain(name) for name in table.names]
    ticks = next((known.index(name) for name in ("tickvol", "tick volume") if name in known), None)
    if ticks is not None and "volume" in columns and not columns["volume"].any():
        columns["volume"] = parse_numbers(table.column(ticks), decimal)
        notes.append(f"volume from {table.names[ticks]!r}, as all others are 0")


def _judge_turnover(columns: dict[str, NDArray[np.float64]], turnover: NDArray[np.float64]) -> str:
    """Take a column "turnover" as amount if it is one; a share of all stock is not."""
    if "volume" not in columns:
        return "turnover ignored: there is no volume"
    price = np.mean([columns[name] for name in PRICES], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = turnover / (columns["volume"] * price)
    finite = ratio[np.isfinite(ratio)]
    middle = float(np.median(finite)) if finite.size else np.nan
    if any(unit / RATE <= middle <= unit * RATE for unit in (1.0, LOT)):
        columns["amount"] = turnover
        return "amount from 'turnover'"
    return "turnover ignored: it is a rate, not an amount"


def _timestamps(
    table: Table, found: Found, form: str | None, last: int | None
) -> tuple[list[str], Table]:
    """The time stamps of `table` as ISO 8601, and the rows that they belong to.

    Rows above the `last` are left out if only they cannot be read.
    """
    cells = table.column(found.at[TIME])
    if CLOCK in found.at:
        clocks = table.column(found.at[CLOCK])
        cells = [f"{date} {clock}" for date, clock in zip(cells, clocks, strict=True)]
    try:
        return to_iso(cells, form), table
    except Unreadable as error:
        if last is not None and error.index < len(cells) - last:
            recent = replace(table, rows=table.rows[-last:], lines=table.lines[-last:])
            return _timestamps(recent, found, form, None)
        name = table.names[found.at[TIME]] or "the first column"
        known = f"the form {form}" if form else EXAMPLE
        raise InvalidInput(
            f"line {table.lines[error.index]}: {name} is {cells[error.index][:40]!r}, which is no "
            f"known time stamp; taken is {known}, and others by --time-format"
        ) from None


def _newest_first(timestamps: Sequence[str]) -> bool:
    """Whether every time stamp is before the one above it."""
    # Timestamps of one file have one form, so their texts are in the order of their times; where
    # offsets differ, only neighbours within a day could be misjudged.
    return len(timestamps) > 1 and all(later < earlier for earlier, later in pairwise(timestamps))


def _from_arrow(data: bytes) -> Table:
    try:
        from pyarrow import feather, parquet
    except ImportError:
        raise InvalidInput(f"is no CSV; what can be read is {CSV}") from None
    from pyarrow import ArrowException

    read = parquet.read_table if data[:4] == b"PAR1" else feather.read_table
    try:
        frame = read(io.BytesIO(data)).to_pandas()
    except (ArrowException, OSError, ValueError) as error:
        raise InvalidInput(f"cannot be read: {str(error).splitlines()[0]}") from None
    if frame.index.name is not None or not frame.index.equals(
        frame.index.__class__(range(len(frame)))
    ):
        frame = frame.reset_index()
    columns = [[_cell(value) for value in frame[name].tolist()] for name in frame.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(",", [str(name) for name in frame.columns], rows, list(range(1, len(rows) + 1)))


def _cell(value: object) -> str:
    isoformat = getattr(value, "isoformat", None)
    return str(isoformat()) if isoformat is not None else str(value)
