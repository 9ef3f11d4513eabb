"""Text as a table of strings: separator, header, line numbers."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kronos_api.errors import InvalidInput

SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
SAMPLE: Final = 50
"""Lines that are looked at to find the separator."""
FEWEST: Final = 4
"""Columns that candles have at least."""
WIDEST: Final = 4096
"""Characters of a field; a longer one is an unclosed quote."""

KLINES: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    *("count", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
"""Columns of Binance's archives, which have no header."""

_NUMBER = re.compile(r"[-+]?[\d.,:/ ]*\d[\d.,:/ ]*(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of strings under named columns, and the line of the file that each row is on."""

    separator: str
    names: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, index: int) -> list[str]:
        """The strings of one column."""
        return [row[index] for row in self.rows]


def parse(text: str, separator: str | None = None) -> Table:
    """The table in `text`; raises `InvalidInput` that says what was found."""
    if not text.strip():
        raise InvalidInput("is empty")
    separator = separator or find_separator(text)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, skipinitialspace=True)
    rows, lines = [], []
    csv.field_size_limit(WIDEST)
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num}: cannot be read: {error}") from None
    if not rows:
        raise InvalidInput("has no candles")
    names, first = _header(rows)
    _check_widths(rows, lines, len(names), first)
    body = [[*row, *[""] * (len(names) - len(row))] for row in rows[first:]]
    return Table(separator, names, body, lines[first:])


def find_separator(text: str) -> str:
    """The separator that splits most lines into one and the same number of at least four fields."""
    sample = [line for line in text.splitlines()[: 2 * SAMPLE] if line.strip()][:SAMPLE]
    best, agreed = ",", 0
    for separator in SEPARATORS:
        try:
            widths = [len(row) for row in csv.reader(sample, delimiter=separator)]
        except csv.Error:
            continue
        width, count = Counter(widths).most_common(1)[0]
        # 14,2;14,21 has commas too, but the semicolon splits the header as well.
        score = count + (widths[0] == width)
        if width >= FEWEST and score > agreed:
            best, agreed = separator, score
    return best


def _header(rows: Sequence[list[str]]) -> tuple[list[str], int]:
    """Names of the columns, and the number of rows that they take."""
    first = rows[0]
    numeric = sum(bool(_NUMBER.fullmatch(cell)) for cell in first)
    if numeric * 2 > len(first):
        if len(first) == len(KLINES) and first[0].isdigit():
            return list(KLINES), 0
        raise InvalidInput(
            f"line 1 holds {numeric} numbers in {len(first)} columns and no names: a header is "
            "needed, such as timestamps,open,high,low,close,volume (only Binance's archives of 12 "
            "columns are known without one)"
        )
    # yfinance: Price,Close,High,... / Ticker,AAPL,AAPL,... / Date,,,,
    if len(rows) > 2 and first[0].lower() == "price" and rows[1][0].lower() == "ticker":
        tickers = sorted({cell for cell in rows[1][1:] if cell})
        if len(tickers) > 1:
            raise InvalidInput(
                f"holds {len(tickers)} series ({', '.join(tickers[:3])}, ...): one is needed"
            )
        dated = rows[2][0].lower() in ("date", "datetime")
        return [rows[2][0] if dated else "date", *first[1:]], 3 if dated else 2
    return first, 1


def _check_widths(
    rows: Sequence[Sequence[str]], lines: Sequence[int], width: int, first: int
) -> None:
    """Refuse rows of more fields than the header has; a trailing separator is none."""
    for row, line in zip(rows[first:], lines[first:], strict=True):
        if len(row) > width and any(row[width:]):
            raise InvalidInput(
                f"line {line}: has {len(row)} fields where the header has {width}; quote fields "
                "that hold the separator"
            )


def described(names: Sequence[str]) -> str:
    """Column names for a message: the first twenty, in quotes."""
    shown = ", ".join(f'"{name[:40]}"' for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
