"""Numbers as people and programs write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from kronos_api.errors import InvalidInput

Decimal = Literal[".", ","]
SUFFIXES: Final = {
    **{"k": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "b": 1e9, "bn": 1e9, "mrd": 1e9, "t": 1e12},
    **{"千": 1e3, "万": 1e4, "萬": 1e4, "만": 1e4, "百万": 1e6, "亿": 1e8, "億": 1e8, "억": 1e8},
}
MISSING: Final = frozenset({"", "-", "--", "—", "n/a", "na", "nan", "null", "none", "#n/a", "<na>"})
"""Text of a volume that the source does not know, in lower case."""

_ODD = re.compile(r"[\s'’_$€£¥₿₹₩₽₺฿₫₪₴₦\u00a0\u202f]")
_CURRENCY = re.compile(r"(USDT?|EUR|GBP|JPY|CNY|CHF|INR|KRW|BRL|Rs\.?|R\$|円|元|원)(?=[\s\d]|$)")
_SUFFIX = re.compile(r"(?<=[\d,.])([A-Za-z千万萬만百亿億억]{1,3})\.?$")
_GROUPED: Final = {
    ".": re.compile(r"[-+]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?"),
    ",": re.compile(r"[-+]?\d{1,3}(\.\d{3})+(,\d+)?"),
}
_PLAIN: Final = {
    ".": re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE),
    ",": re.compile(r"[-+]?(\d+,?\d*|,\d+)(e[-+]?\d+)?", re.IGNORECASE),
}


def find_decimal(columns: Sequence[Sequence[str]], separator: str) -> Decimal:
    """The decimal mark of all `columns`, of a table split at `separator`.

    1,234.5 and 1.234,5 decide it; so do 14,07 and 14.0751. Where every number is like 24,300 the
    comma groups thousands in a table split at commas. Raises `InvalidInput` where numbers
    contradict each other, or none decides it.
    """
    if not any("," in cell for column in columns for cell in column):
        return "."
    points = commas = unclear = False
    for column in columns:
        for cell in column:
            text = _SUFFIX.sub("", _bare(cell))
            if "," not in text:
                # 14.0751 and 14.07 have a decimal point; 24.300 can be a group.
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
            "has numbers with a decimal point and numbers with a decimal comma; give --decimal . "
            "or --decimal ,"
        )
    if commas:
        return ","
    if unclear and not points and separator != ",":
        raise InvalidInput(
            "has numbers such as 24,300 whose comma can be a decimal mark or group thousands; give "
            "--decimal , or --decimal ."
        )
    return "."


def parse_numbers(column: Sequence[str], decimal: Decimal) -> NDArray[np.float64]:
    """A column as float64 [n]; NaN for text that is not a number."""
    if decimal == ".":
        with suppress(ValueError):  # plain numbers, which are most, take a tenth of the time
            return np.array(column).astype(np.float64)
    return np.array([_number(cell, decimal) for cell in column], dtype=np.float64)


def is_missing(column: Sequence[str]) -> bool:
    """Whether the source knows no value of `column`."""
    return all(cell.lower() in MISSING for cell in column)


def _bare(cell: str) -> str:
    """`cell` without signs of currency and spaces, in plain digits."""
    text = cell if cell.isascii() else unicodedata.normalize("NFKC", cell)
    return _ODD.sub("", _CURRENCY.sub("", text.strip()))


def _number(cell: str, decimal: Decimal) -> float:
    text, factor = _bare(cell), 1.0
    if (match := _SUFFIX.search(text)) and (suffix := SUFFIXES.get(match[1].lower())):
        text, factor = text[: match.start()], suffix
    if _GROUPED[decimal].fullmatch(text):
        text = text.replace("," if decimal == "." else ".", "")
    elif not _PLAIN[decimal].fullmatch(text):
        return np.nan
    number = float(text.replace(",", ".") if decimal == "," else text)
    # 10.01K is 10010, not 10009.999999999998.
    return number if factor == 1.0 else round(number * factor, 6)
