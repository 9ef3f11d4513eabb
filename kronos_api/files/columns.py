"""Which column is which, by the names that data sources give."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kronos_api.errors import InvalidInput
from kronos_api.files.table import described
from kronos_api.timeseries.features import FIELDS, PRICES

TIME: Final = "time"
CLOCK: Final = "clock"
"""The time of day, where it stands in a column beside the date."""

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    # Most telling first: of several that are there, the first is taken.
    TIME: (
        *(
            "timestamps",
            "timestamp",
            "datetime",
            "date",
            "time",
            "open time",
            "opentime",
            "trade date",
        ),
        *("tradedate", "trade time", "start time", "gmt time", "local time", "day", "dt", "ts"),
        *(
            "日期时间",
            "日期",
            "时间",
            "交易日期",
            "交易时间",
            "trading date",
            "unix",
            "week",
            "month",
        ),
    ),
    "open": ("open", "o", "open price", "opening price", "1 open", "开盘", "开盘价", "今开"),
    "high": ("high", "h", "high price", "2 high", "max", "最高", "最高价"),
    "low": ("low", "l", "low price", "3 low", "min", "最低", "最低价"),
    "close": (
        *("close", "c", "close price", "closing price", "4 close", "close last", "last", "price"),
        *("收盘", "收盘价", "adj close"),
    ),
    "volume": (
        *(
            "volume",
            "vol",
            "v",
            "5 volume",
            "tick volume",
            "tickvol",
            "qty",
            "成交量",
            "base volume",
        ),
    ),
    "amount": (
        *(
            "amount",
            "quote volume",
            "quote asset volume",
            "value",
            "成交额",
            "成交金额",
            "turnover",
        ),
        *("volume usdt", "volume usd", "money"),
    ),
}
"""Names of each column, in lower case without punctuation."""
SYMBOLS: Final = (
    "symbol",
    "ticker",
    "ts code",
    "code",
    "股票代码",
    "代码",
    "unique id",
    "pair",
    "figi",
)

_PUNCTUATION = re.compile(r"[^\w]+|_")


@dataclass(slots=True)
class Found:
    """Index of each column that was found, and of those that need a closer look."""

    at: dict[str, int] = field(default_factory=dict)
    symbol: int | None = None
    turnover: int | None = None
    """A column that may hold amounts or rates."""


def plain(name: str) -> str:
    """`name` as it stands in `NAMES`: `<TICK_VOL>` is `tick vol`."""
    return _PUNCTUATION.sub(" ", name.lower()).strip()


def find(names: Sequence[str], chosen: Mapping[str, str]) -> Found:
    """Where each column is; `chosen` maps fields to names that the user gave.

    Raises `InvalidInput` that lists the columns found.
    """
    known = [plain(name) for name in names]
    found = Found()
    for name, column in chosen.items():
        found.at[name] = _chosen(names, known, name, column)
    for name, aliases in NAMES.items():
        if name in found.at:
            continue
        for alias in aliases:
            places = [at for at, have in enumerate(known) if have == alias]
            if len(places) > 1 and name != TIME:
                raise InvalidInput(
                    f"has {len(places)} columns {alias}; found {described(names)}. Remove one, or "
                    "rename it"
                )
            if places:
                found.at[name] = places[0]
                break
    _find_clock(known, found)
    _find_time(names, known, found)
    if "amount" in found.at and known[found.at["amount"]] == "turnover" and "amount" not in chosen:
        found.turnover = found.at.pop("amount")
    found.symbol = next((known.index(name) for name in SYMBOLS if name in known), None)
    if missing := [name for name in PRICES if name not in found.at]:
        raise InvalidInput(
            f"has no column {', '.join(missing)}; found {described(names)}. Name yours, such as "
            f"--columns {missing[0]}=NAME"
        )
    return found


def _chosen(names: Sequence[str], known: Sequence[str], name: str, column: str) -> int:
    for listed, wanted in ((names, column), (known, plain(column))):
        if wanted in listed:
            return list(listed).index(wanted)
    near = difflib.get_close_matches(column, names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else f"; found {described(names)}"
    raise InvalidInput(f'has no column "{column}" for {name}{hint}')


def _find_clock(known: Sequence[str], found: Found) -> None:
    """A date and a time of day in two columns."""
    at = found.at.get(TIME)
    if at is None or known[at] not in ("date", "日期", "trade date", "day", "dt"):
        return
    for name in ("time", "时间", "trade time", "hour"):
        if name in known and known.index(name) != at:
            found.at[CLOCK] = known.index(name)
            return


def _find_time(names: Sequence[str], known: Sequence[str], found: Found) -> None:
    """Without a known name: the first column, if it is no other; an index has no name."""
    if TIME in found.at:
        return
    if names and 0 not in found.at.values() and known[0] not in SYMBOLS:
        found.at[TIME] = 0
        return
    raise InvalidInput(
        f"has no time column; found {described(names)}. Known names are timestamps, datetime, date "
        "and others; name yours, such as --columns time=NAME"
    )


def parse_choice(text: str) -> dict[str, str]:
    """`close=Last,time=When` as a mapping; raises `InvalidInput`."""
    chosen = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = part.partition("=")
        name = name.strip().lower()
        name = TIME if name in NAMES[TIME] else name
        if not equals or not column.strip() or name not in (TIME, CLOCK, *FIELDS):
            raise InvalidInput(
                f"--columns must be such as close=Last,time=When with the names time, "
                f"{', '.join(FIELDS)}; found {part!a}"
            )
        chosen[name] = column.strip()
    return chosen
