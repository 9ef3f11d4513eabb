"""Candles of one series from a file, and one line that says how it was understood."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.errors import InvalidInput
from kronos_api.files.columns import ColumnMap, find_columns
from kronos_api.files.names import CLOCK, TIME, plain
from kronos_api.files.numbers import Decimal, find_decimal, is_missing, parse_numbers
from kronos_api.files.options import ReadOptions
from kronos_api.files.table import SEPARATORS, Table, parse_table
from kronos_api.files.text import CSV, LARGEST, decode, decompress
from kronos_api.files.times import EXAMPLE, Unreadable, join_clocks, looks_like_time, to_iso
from kronos_api.timeseries.features import FIELDS, PRICES

RATE: Final = 5.0
"""A turnover within this factor of volume times price is an amount; else it is a rate."""
LOT: Final = 100.0
"""Shares of a lot, in which Chinese sources give volume."""

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class FileCandles:
    """Candles, oldest first: float64 [n] by field, ISO 8601 texts, and the line of each.

    cells: the texts of the fields, for messages. understood: one line on how the file was read.
    """

    columns: Columns
    timestamps: list[str]
    lines: list[int]
    time_name: str
    understood: str
    cells: Mapping[str, Sequence[str]]

    def cell(self, name: str, row: int) -> str | None:
        """The text of the field, or column of time, `name`; None if there is none."""
        cells = self.cells.get(TIME if name == self.time_name else name)
        return None if cells is None else cells[row]


def read_candles(
    data: bytes,
    options: ReadOptions | None = None,
    last: int | None = None,
    *,
    largest: int = LARGEST,
    bounded: bool = False,
) -> FileCandles:
    """Read the file `data`: CSV of most forms, compressed or not; Parquet and Feather by an extra.

    Of a longer file, only the `last` candles by time are returned. The caller checks the rules of
    candles. largest: bytes after decompression. bounded: take little time and memory: Parquet and
    Feather are refused, and of a file of more than four times `last` lines the middle is not read.

    Raises `InvalidInput` that says what was found and which option changes it.
    """
    options = options or ReadOptions()
    table, notes = _table(decompress(data, largest), options, bounded, last)
    found = find_columns(
        table.names,
        options.columns,
        lambda at: bool(table.rows) and looks_like_time(table.rows[0][at]),
    )
    if not table.rows:
        raise InvalidInput("has a header and no candles")
    _check_symbol(table, found)
    cells, timestamps, table = _timestamps(table, found, options.time_format, last)
    columns, texts = _numbers(table, found, options, notes)
    texts |= {TIME: cells}
    lines = table.lines
    if _newest_first(timestamps):
        columns = {name: column[::-1].copy() for name, column in columns.items()}
        texts = {name: column[::-1] for name, column in texts.items()}
        timestamps, lines = timestamps[::-1], lines[::-1]
        notes.append("newest first turned round")
    count = f"read {len(lines) + table.dropped} rows"
    if last is not None and len(lines) > last:
        count += f", the last {last} used"
        columns = {name: column[-last:] for name, column in columns.items()}
        texts = {name: column[-last:] for name, column in texts.items()}
        timestamps, lines = timestamps[-last:], lines[-last:]
    understood = ", ".join([count, *notes, found.summary(table.names)])
    time_name = table.names[found.at[TIME]] or "the first column"
    return FileCandles(columns, timestamps, lines, time_name, understood, texts)


def _table(
    data: bytes, options: ReadOptions, bounded: bool, last: int | None
) -> tuple[Table, list[str]]:
    """The table in `data`, and notes on its form."""
    if data[:4] in (b"PAR1", b"ARRO", b"FEA1"):
        form = "Parquet" if data[:4] == b"PAR1" else "Feather"
        if bounded:
            raise InvalidInput(f"is {form}; save it as CSV, or use kronos-api predict")
        return _from_arrow(data, form), [form]
    text, encoding = decode(data)
    ends = 2 * last if bounded and last is not None else None
    table = parse_table(text, options.separator, ends)
    notes = [] if encoding == "utf-8" else [encoding.upper()]
    if table.separator != ",":
        notes.append(SEPARATORS.get(table.separator, f"separator {table.separator!r}"))
    return table, notes + table.notes


def _numbers(
    table: Table, found: ColumnMap, options: ReadOptions, notes: list[str]
) -> tuple[Columns, dict[str, Sequence[str]]]:
    """The numeric columns, and their texts; `notes` gets what was left out or taken instead."""
    texts: dict[str, Sequence[str]] = {
        name: table.column(found.at[name]) for name in FIELDS if name in found.at
    }
    for name in FIELDS[4:]:
        if name in texts and is_missing(texts[name]):
            del texts[name]
            notes.append(f"{name} is empty and not used")
    if "amount" in texts and "volume" not in texts:
        del texts["amount"]
        notes.append("amount not used without volume")
    turnover = [] if found.turnover is None else [table.column(found.turnover)]
    decimal = options.decimal or find_decimal([*texts.values(), *turnover], table.separator)
    if decimal == ",":
        notes.append("decimal comma")
    columns = {name: parse_numbers(column, decimal) for name, column in texts.items()}
    _use_ticks(table, found, columns, decimal)
    if turnover:
        notes.append(_judge_turnover(found, columns, parse_numbers(turnover[0], decimal)))
    return columns, texts


def _check_symbol(table: Table, found: ColumnMap) -> None:
    if found.symbol is not None:
        symbols = sorted(set(table.column(found.symbol)))
        if len(symbols) > 1:
            raise InvalidInput(
                f"holds {len(symbols)} series in the column {table.names[found.symbol]!r} "
                f"({', '.join(symbols[:3])}{', ...' if len(symbols) > 3 else ''}); keep one of them"
            )


def _use_ticks(table: Table, found: ColumnMap, columns: Columns, decimal: Decimal) -> None:
    """Take ticks for a volume of zeros, which MetaTrader writes for what no exchange trades."""
    known = [plain(name) for name in table.names]
    ticks = next((known.index(name) for name in ("tickvol", "tick volume") if name in known), None)
    if ticks is not None and "volume" in columns and not columns["volume"].any():
        columns["volume"] = parse_numbers(table.column(ticks), decimal)
        found.at["volume"] = ticks


def _judge_turnover(found: ColumnMap, columns: Columns, turnover: NDArray[np.float64]) -> str:
    """Take a column "turnover" as amount if it is one; a rate, of all shares, is not."""
    if "volume" not in columns:
        return "turnover not used without volume"
    price = np.mean([columns[name] for name in PRICES], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = turnover / (columns["volume"] * price)
    finite = ratio[np.isfinite(ratio)]
    middle = float(np.median(finite)) if finite.size else np.nan
    if not any(unit / RATE <= middle <= unit * RATE for unit in (1.0, LOT)):
        return "turnover is a rate, not an amount"
    columns["amount"] = turnover
    assert found.turnover is not None
    found.at["amount"] = found.turnover
    return "turnover is an amount"


def _timestamps(
    table: Table, found: ColumnMap, form: str | None, last: int | None
) -> tuple[list[str], list[str], Table]:
    """Timestamps as in the file and as ISO 8601, and the rows that they belong to.

    Rows above the `last` are left out if only they cannot be read.
    """
    cells = table.column(found.at[TIME])
    name = table.names[found.at[TIME]] or "the first column"
    if CLOCK in found.at:
        cells = join_clocks(cells, table.column(found.at[CLOCK]))
        name = f"{name} and {table.names[found.at[CLOCK]]}"
    try:
        return cells, to_iso(cells, form), table
    except Unreadable as error:
        if last is not None and error.index < len(cells) - last:
            recent = replace(table, rows=table.rows[-last:], lines=table.lines[-last:])
            return _timestamps(recent, found, form, None)
        accepted = f"the form {form}" if form else EXAMPLE
        raise InvalidInput(
            f"line {table.lines[error.index]}: {name} is {cells[error.index][:40]!r}, which is no "
            f"known timestamp{error.hint}; accepted is {accepted}, and other forms by --time-format"
        ) from None


def _newest_first(timestamps: Sequence[str]) -> bool:
    """Whether every timestamp is before the one above it."""
    # Timestamps of one file have one form, so their texts are in the order of their times; where
    # offsets differ, only those within a day of each other could be misjudged.
    return len(timestamps) > 1 and all(later < earlier for earlier, later in pairwise(timestamps))


def _from_arrow(data: bytes, form: str) -> Table:
    try:
        from pyarrow import ArrowException, feather, parquet
    except ImportError:
        raise InvalidInput(f"is {form}; {CSV} can be read") from None
    read = parquet.read_table if form == "Parquet" else feather.read_table
    try:
        frame = read(io.BytesIO(data)).to_pandas()
    except (ArrowException, OSError, ValueError) as error:
        raise InvalidInput(
            f"begins as {form} and cannot be read ({str(error).splitlines()[0]}); is it complete?"
        ) from None
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
