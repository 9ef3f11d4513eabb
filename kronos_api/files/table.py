"""Text as a table of strings: separator, header, line numbers."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kronos_api.errors import InvalidInput
from kronos_api.files.names import TIME, fields_of
from kronos_api.timeseries.features import PRICES

SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "space"}
SAMPLE: Final = 50
"""Lines that are looked at to find the separator."""
PREAMBLE: Final = 20
"""Lines among which the header is looked for."""
FEWEST: Final = 4
"""Columns that candles have at least."""
FOOTER: Final = 3
"""Filled fields that a line below the candles has at most."""
WIDEST: Final = 4096
"""Characters of a field; a longer one is an unclosed quote."""

KLINES: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    *("count", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
"""Columns of Binance's archives, which have no header."""

_NUMBER = re.compile(r"[-+]?[\d.,:/ T-]*\d[\d.,:/ ]*(e[-+]?\d+)?Z?", re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"\d+(\.\d+)?(e[-+]?\d+)?", re.IGNORECASE)
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of strings under named columns, and the line of the file that each row is on."""

    separator: str
    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: list[str] = field(default_factory=list)
    """Lines that were left out, and columns that were named by their order."""
    dropped: int = 0
    """Lines of the middle that were not parsed."""

    def column(self, index: int) -> list[str]:
        """The strings of one column."""
        return [row[index] for row in self.rows]


def parse_table(text: str, separator: str | None = None, ends: int | None = None) -> Table:
    """The table in `text`; raises `InvalidInput` that says what was found.

    ends: of a longer table, only so many lines at each end are parsed.
    """
    if not text.strip():
        raise InvalidInput("is empty")
    if text.lstrip()[0] in "<{[" and not text.lstrip().startswith(("<DATE", "<TICKER", "<date")):
        kind = "HTML or XML" if text.lstrip()[0] == "<" else "JSON"
        raise InvalidInput(f"looks like {kind}; CSV is needed, with a header such as {HEADER}")
    skipped = 0
    if line := _SEPARATOR_LINE.match(text):  # spreadsheets' own first line
        separator = separator or line[1]
        text, skipped = text[line.end() :], 1
    separator = separator or find_separator(text)
    rows, lines, dropped = _rows(text, separator, ends)
    if not rows:
        raise InvalidInput("has no candles")
    names, first, notes = _header(rows)
    last = len(rows)
    while last > first and _is_footer(rows[last - 1]):
        last -= 1
    if last < len(rows):
        notes.append(f"{_lines(len(rows) - last)} below the candles left out")
    rows, lines = rows[first:last], [line + skipped for line in lines[first:last]]
    names = _check_widths(rows, lines, names)
    rows = [[*row, *[""] * (len(names) - len(row))][: len(names)] for row in rows]
    return Table(separator, names, rows, lines, notes, dropped)


def _rows(text: str, separator: str, ends: int | None) -> tuple[list[list[str]], list[int], int]:
    """Rows of trimmed cells, the line that each begins on, and the number of lines not parsed.

    Comments and empty lines go.
    """
    source = text.splitlines(keepends=True)
    ends = len(source) if ends is None else ends
    dropped = max(0, len(source) - 2 * ends)
    if dropped:
        source[ends:-ends] = []
    reader = csv.reader(
        [line.lstrip(" ") for line in source], delimiter=separator, skipinitialspace=True
    )
    rows, lines, number = [], [], 0
    csv.field_size_limit(WIDEST)
    try:
        for row in reader:
            number = reader.line_num + (dropped if reader.line_num > ends else 0)
            if any(cell.strip() for cell in row) and not row[0].startswith(("#", "//")):
                rows.append([cell.strip() for cell in row])
                lines.append(number)
    except csv.Error as error:
        raise InvalidInput(f"line {number + 1}: cannot be read: {error}") from None
    return rows, lines, dropped


def find_separator(text: str) -> str:
    """The separator that splits most lines into one and the same number of at least four fields.

    One that splits a line into names of prices goes first: 14,2;14,21 has commas too.
    """
    head = text[: 2 * SAMPLE * WIDEST].splitlines()[: 2 * SAMPLE]
    sample = [line.strip(" ") for line in head if line.strip()][:SAMPLE]
    best, agreed = ",", 0
    for separator in SEPARATORS:
        try:
            rows = list(csv.reader(sample, delimiter=separator, skipinitialspace=True))
        except csv.Error:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        score = count + (len(rows[0]) == width)
        if any(len(fields_of(row).intersection(PRICES)) >= 3 for row in rows[:PREAMBLE]):
            score += 2 * SAMPLE
        if width >= FEWEST and score > agreed:
            best, agreed = separator, score
    return best


HEADER: Final = "timestamps,open,high,low,close,volume"


def _header(rows: Sequence[list[str]]) -> tuple[list[str], int, list[str]]:
    """Names of the columns, the number of rows above the candles, and notes."""
    known = [len(fields_of(row).intersection(PRICES)) for row in rows[:PREAMBLE]]
    at = next((index for index, count in enumerate(known) if count >= 3), 0)
    first = rows[at]
    if not at and sum(bool(_NUMBER.fullmatch(cell)) for cell in first) * 2 > len(first):
        return _without_header(rows)
    notes = [f"{_lines(at)} above the header left out"] if at else []
    # yfinance: Price,Close,High,... / Ticker,AAPL,AAPL,... / Date,,,,
    below = rows[at + 1 : at + 3]
    if len(below) == 2 and _is_ticker_line(below[0]) and known[at] >= 3:
        tickers = sorted({cell for cell in below[0][1:] if cell})
        if len(tickers) > 1:
            raise InvalidInput(
                f"holds {len(tickers)} series ({', '.join(tickers[:3])}, ...): one is needed"
            )
        dated = below[1][0].lower() in ("date", "datetime")
        names = [below[1][0] if dated else "date", *first[1:]]
        return names, at + (3 if dated else 2), notes
    return first, at + 1, notes


def _is_ticker_line(row: Sequence[str]) -> bool:
    return row[0].lower() in ("ticker", "tickers", "symbols", "symbol", "") and not any(
        _NUMBER.fullmatch(cell) for cell in row
    )


def _without_header(rows: Sequence[list[str]]) -> tuple[list[str], int, list[str]]:
    """Names by order: those of Binance, or time, open, high, low, close where the numbers fit."""
    width = len(rows[0])
    if width == len(KLINES) and rows[0][0].isdigit():
        return list(KLINES), 0, ["no header, columns in the order of Binance"]
    for times in (("time",), ("date", "time")):
        names = [*times, *PRICES, "volume"][:width]
        prices = slice(len(times), len(times) + 4)
        if len(names) >= len(times) + 4 and all(_in_order(row[prices]) for row in rows):
            names += [f"column {index + 1}" for index in range(len(names), width)]
            return names, 0, ["no header, columns by their order"]
    raise InvalidInput(
        f"line 1 holds numbers in {width} columns and no names: a header is needed, such as "
        f"{HEADER}"
    )


def _in_order(cells: Sequence[str]) -> bool:
    """Whether four cells are open, high, low and close of a candle."""
    if not all(_PLAIN_NUMBER.fullmatch(cell) for cell in cells) or len(cells) < len(PRICES):
        return False
    opened, high, low, close = map(float, cells)
    return low <= min(opened, close) and high >= max(opened, close)


def _is_footer(row: Sequence[str]) -> bool:
    filled = [cell for cell in row if cell]
    return len(filled) <= FOOTER and not filled[0][0].isdigit()


def _check_widths(
    rows: Sequence[Sequence[str]], lines: Sequence[int], names: list[str]
) -> list[str]:
    """The names, one for each field; raises `InvalidInput` for a row of more fields.

    A trailing separator is no field. Where each row has one field more than the header and none of
    its names is one of time, the first column is an index without a name, as R writes it.
    """
    width = len(names)
    indexed = all(len(row) == width + 1 and row[-1] for row in rows)
    if rows and indexed and TIME not in fields_of(names):
        return ["", *names]
    for row, line in zip(rows, lines, strict=True):
        if len(row) > width and any(row[width:]):
            raise InvalidInput(
                f"line {line}: has {len(row)} fields where the header has {width}; quote fields "
                "that hold the separator, or name it, such as --sep ';'"
            )
    return names


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"
