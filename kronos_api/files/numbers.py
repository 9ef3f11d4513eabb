"""Numbers as people and programs write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from kronos_api.errors import InvalidInput

Decimal = Literal[".", ","]
SUFFIXES: Final = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12, "万": 1e4, "亿": 1e8}

_ODD = re.compile(r"[\s'’_$€£¥₿\u00a0\u202f]")
_GROUPED: Final = {
    ".": re.compile(r"[-+]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?"),
    ",": re.compile(r"[-+]?\d{1,3}(\.\d{3})+(,\d+)?"),
}
_PLAIN: Final = {
    ".": re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE),
    ",": re.compile(r"[-+]?(\d+,?\d*|,\d+)(e[-+]?\d+)?", re.IGNORECASE),
}


def find_decimal(columns: Sequence[Sequence[str]], separator: str) -> Decimal:
    """Which sign parts the fraction in all of `columns`, of a table split at `separator`.

    1,234.5 and 1.234,5 tell; so do 14,07 and 14.0751. Where every number is like 24,300 the
    comma groups thousands in a table split at commas. Raises `InvalidInput` where numbers
    contradict each other, or nothing tells.
    """
    if not any("," in cell for column in columns for cell in column):
        return "."
    points = commas = unclear = False
    for column in columns:
        for cell in column:
            text = _ODD.sub("", cell)
            if "," not in text:
                # 14.0751 and 14.07 part a fraction; 24.300 may be a group.
                points = points or ("." in text and not _GROUPED[","].fullmatch(text))
                continue
            if "." in text:
                points = points or text.rindex(".") > text.rindex(",")
                commas = commas or text.rindex(".") < text.rindex(",")
            elif _GROUPED["."].fullmatch(text):
                unclear = True
            else:
                commas = True
    if points and commas:
        raise InvalidInput(
            "has numbers with a decimal point and numbers with a decimal comma; give --decimal"
        )
    if commas:
        return ","
    if unclear and not points and separator != ",":
        raise InvalidInput(
            "has numbers such as 24,300 whose comma may part thousands or a fraction; give "
            "--decimal . or --decimal ,"
        )
    return "."


def parse_numbers(column: Sequence[str], decimal: Decimal) -> NDArray[np.float64]:
    """A column as float64 [n]; text that is no number becomes NaN."""
    if decimal == ".":
        with suppress(ValueError):  # plain numbers, which are most, in a tenth of the time
            return np.array(column).astype(np.float64)
    return np.array([_number(cell, decimal) for cell in column], dtype=np.float64)


def _number(cell: str, decimal: Decimal) -> float:
    text = _ODD.sub("", cell)
    factor = 1.0
    if text and (suffix := SUFFIXES.get(text[-1].lower())) is not None:
        text, factor = text[:-1], suffix
    if _GROUPED[decimal].fullmatch(text):
        text = text.replace("," if decimal == "." else ".", "")
    elif not _PLAIN[decimal].fullmatch(text):
        return np.nan
    number = float(text.replace(",", ".") if decimal == "," else text)
    # 10.01K is 10010, not 10009.999999999998.
    return number if factor == 1.0 else round(number * factor, 6)
