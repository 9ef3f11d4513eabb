"""Candles of a file, checked by the rules of candles and timestamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kronos_api.errors import InvalidInput
from kronos_api.files.reader import FileCandles
from kronos_api.timeseries import Timestamps, parse_timestamps
from kronos_api.timeseries.candles import check_candles
from kronos_api.timeseries.features import Floats
from kronos_api.violations import InvalidFields

OWN_WORDS: Final = {"repair_input": "--repair-input", "finite in float32": "a finite number"}
"""Words of the API's messages, and those of files."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The last candles of a file: float32 [history, 6], and as many timestamps.

    understood: how the file was read, in one line. repaired: values that were repaired.
    """

    candles: Floats
    timestamps: Timestamps
    understood: str
    repaired: int = 0


def check_file(file: FileCandles, *, repair: bool = False) -> History:
    """The candles of `file`; `repair` as in `check_candles`.

    Raises `InvalidInput` that names the line, and the text found there.
    """
    try:
        timestamps = parse_timestamps(file.timestamps, file.time_name)
        candles, repaired = check_candles(file.columns, repair=repair)
    except InvalidFields as error:
        raise InvalidInput(_by_line(error, file)) from None
    return History(candles, timestamps, file.understood, repaired)


def _by_line(error: InvalidFields, file: FileCandles) -> str:
    """The first violation, with its line of the file and the text found there."""
    first, more = error.violations[0], len(error.violations) - 1
    rule = first.constraint
    for api, own in OWN_WORDS.items():
        rule = rule.replace(api, own)
    if first.index is None:
        return f"{first.field} must be {rule}"
    found = file.cell(first.field, first.index)
    text = f"line {file.lines[first.index]}: {first.field} must be {rule}"
    if found is not None:
        text += f"; found {found[:40]!r}" if found else "; found an empty field"
    if "finite" in first.constraint or "greater than 0" in first.constraint:
        text += "; fill it, or remove the line"
    return text + (f" (and {more} more)" if more else "")
