"""Codes of calendars, the names that stand for them, and what is known without building one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from functools import cache
from typing import Any, Final

from kronos_api.timeseries.markets import find_markets, markets
from kronos_api.violations import invalid_field

ALIASES: Final = {
    **dict.fromkeys(("CRYPTO", "BINANCE", "COINBASE", "KRAKEN", "BYBIT", "OKX"), "24/7"),
    **dict.fromkeys(("FX", "FOREX"), "24/5"),
    **dict.fromkeys(("NSE", "XNSE"), "XBOM"),
    **dict.fromkeys(("SHSE", "SZSE", "XSHE", "SH", "SZ"), "XSHG"),
}
"""Names that traders use and the package does not know; their sessions are those of the code."""
NO_HOURS: Final = {
    **dict.fromkeys(("SHFE", "DCE", "CZCE", "CFFEX", "INE", "GFEX"), "XSHG"),
    "MCX": "XBOM",
}
"""Exchanges whose hours are not recorded, and one that trades on the same days."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a caller needs to choose a calendar; times are today's regular ones, local."""

    code: str
    aliases: tuple[str, ...]
    name: str
    country: str
    time_zone: str
    open: time
    close: time
    break_start: time | None
    break_end: time | None
    opens_day_before: bool
    """Whether a session opens on the evening before its date."""
    closes_day_after: bool
    """Whether a session closes on the day after its date, at midnight."""


@cache
def known_names() -> dict[str, str]:
    """Codes and aliases in capitals, and the code that each stands for."""
    import exchange_calendars

    codes = exchange_calendars.get_calendar_names(include_aliases=False)
    aliases = exchange_calendars.aliases_to_names()
    return {code.upper(): code for code in codes} | {
        alias.upper(): code for alias, code in (ALIASES | aliases).items()
    }


def canonical_code(code: str) -> str:
    """The code of the calendar that `code` stands for; raises `InvalidFields` if there is none."""
    names = known_names()
    if (known := names.get(code.upper())) is not None:
        return known
    if (same_days := NO_HOURS.get(code.upper())) is not None:
        raise invalid_field(
            "calendar",
            f"one whose hours are known: {code.upper()} is not. {same_days} trades on the same"
            " days, which is enough for daily candles",
        )
    rule = "the code of a known exchange, such as XNYS, XSHG, CRYPTO or FX; GET /v1/calendars lists"
    suggested = [
        f"{code} ({markets()[code][0]})" if code in markets() else code
        for code in find_markets(code, names)
    ]
    if not suggested:
        raise invalid_field("calendar", f"{rule} them all")
    raise invalid_field("calendar", f"{rule} them all; did you mean {' or '.join(suggested)}?")


@cache
def exchanges() -> tuple[Exchange, ...]:
    """All calendars, by code; takes a second when the package is imported for it."""
    import exchange_calendars

    names = known_names()
    codes = exchange_calendars.get_calendar_names(include_aliases=False)
    return tuple(
        _exchange(code, tuple(sorted(name for name, of in names.items() if of == code)))
        for code in sorted(codes)
    )


def _exchange(code: str, names: tuple[str, ...]) -> Exchange:
    from exchange_calendars.calendar_utils import global_calendar_dispatcher

    # Hours are constants of the class; an instance would compute all sessions of 20 years.
    kind = global_calendar_dispatcher._calendar_factories[code]
    calendar: Any = object.__new__(kind)
    name, country = markets().get(code, (code, ""))

    def latest(times: Any) -> time | None:
        return times[-1][1] if times else None

    opens, closes = latest(calendar.open_times), latest(calendar.close_times)
    assert opens is not None
    assert closes is not None
    return Exchange(
        code=code,
        aliases=tuple(alias for alias in names if alias != code.upper()),
        name=name,
        country=country,
        time_zone=str(calendar.tz),
        open=opens,
        close=closes,
        break_start=latest(calendar.break_start_times),
        break_end=latest(calendar.break_end_times),
        opens_day_before=calendar.open_offset < 0,
        closes_day_after=calendar.close_offset > 0,
    )
