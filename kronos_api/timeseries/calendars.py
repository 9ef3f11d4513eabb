"""Trading hours: stamps that only fall into the sessions of an exchange.

Holidays, half days and lunch breaks are those of the `exchange_calendars` package, which is
imported when the first calendar is asked for. Daily bars have one stamp a session, at the last
stamp's time of day. Intraday bars start anew at each opening, also after a lunch break; the last
bar before a close may be short. They are labelled with their start, unless more stamps of the
history fall on closing than on opening times: then with their end.

Each calendar is built once, over all years that a request may ask for: 67 years of XNYS take as
long as 5 (0.12 s), so requests for other years cause no further work. All 71 calendars together
take 7 s and 20 MB.
"""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from kronos_api.timeseries.frequency import Frequency
from kronos_api.timeseries.timestamps import Instants, Timestamps, microseconds
from kronos_api.violations import invalid_field

FIRST_YEAR: Final = 1970
"""The first year of every calendar, and the first in which a history may end."""
LAST_YEAR: Final = datetime.now(UTC).year + 10
"""The last year of every calendar."""
YEARS_AHEAD: Final = 3
"""512 sessions after a history end within so many years."""
RECENT: Final = 256
"""Timestamps of the history that are looked at to see how they are labelled."""
BUILDERS: Final = 2
"""Calendars built at one time. Building holds the interpreter's lock, so more would be no faster
and would slow down the event loop; the second lets XNYS (0.1 s) pass XKRX (1.7 s)."""

Days = NDArray[np.datetime64]
_EPOCH = datetime(1970, 1, 1)

log = structlog.stdlib.get_logger("kronos_api.calendars")


@dataclass(frozen=True, slots=True, eq=False)
class Sessions:
    """The sessions of one exchange over some years, in order.

    `days` are the dates of the sessions, datetime64[D] [sessions]. `opens` and `closes` are
    microseconds since 1970 UTC, int64 [segments]: a session with a lunch break has two segments.
    """

    code: str
    zone: tzinfo
    days: Days
    opens: Instants
    closes: Instants

    def following(self, history: Timestamps, horizon: int, freq: Frequency) -> Timestamps:
        """The next `horizon` stamps after `history`; raises `InvalidFields`."""
        if freq.daily:
            walls = self._daily(history, horizon)
        elif freq.intraday and freq.step is not None:
            walls = self._intraday(history, horizon, freq.step)
        else:
            raise invalid_field("freq", "shorter than a day, 1D or B where a calendar is given")
        if len(walls) < horizon:
            rule = f"one that reaches over the horizon: {self.code} ends on {self.days[-1]}"
            raise invalid_field("calendar", rule)
        return history.continued(walls)

    def _daily(self, history: Timestamps, horizon: int) -> list[datetime]:
        as_written = list(history.walls[-RECENT:])
        local = self._local(history)
        # 15:00Z may be written for a day that began at midnight in Tokyo.
        shifted = self._count(local) > self._count(as_written)
        last = (local if shifted else as_written)[-1]
        after = int(np.searchsorted(self.days, np.datetime64(last.date()), side="right"))
        days = self.days[after : after + horizon].tolist()
        walls = [datetime.combine(day, last.time()) for day in days]
        if not shifted:
            return walls
        instants = [wall.replace(tzinfo=self.zone).astimezone(UTC) for wall in walls]
        offset = history.offset or timedelta()
        return [instant.replace(tzinfo=None) + offset for instant in instants]

    def _count(self, walls: Sequence[datetime]) -> int:
        """How many of `walls` fall on the date of a session."""
        dates = np.array([wall.date() for wall in walls], dtype="datetime64[D]")
        return int(np.isin(dates, self.days).sum())

    def _intraday(self, history: Timestamps, horizon: int, step: timedelta) -> list[datetime]:
        recent = self._instants(history)
        length = step // timedelta(microseconds=1)
        by_end = np.isin(recent, self.closes).sum() > np.isin(recent, self.opens).sum()
        labels: list[int] = []
        for segment in range(int(np.searchsorted(self.closes, recent[-1])), len(self.opens)):
            opens, closes = int(self.opens[segment]), int(self.closes[segment])
            # Neither bars that are over nor more of them than can be asked for.
            skipped = max(0, (int(recent[-1]) - opens) // length - 1)
            starts = range(opens + skipped * length, closes, length)[: horizon + 2]
            ends = (min(start + length, closes) for start in starts)
            labels += [label for label in (ends if by_end else starts) if label > recent[-1]]
            if len(labels) >= horizon:
                break
        return self._walls(history, labels[:horizon])

    def _instants(self, history: Timestamps) -> Instants:
        """Of the recent stamps; those without an offset are read as the exchange's local time."""
        if history.aware:
            return history.instants[-RECENT:]
        local = (wall.replace(tzinfo=self.zone) for wall in history.walls[-RECENT:])
        return microseconds([wall.astimezone(UTC).replace(tzinfo=None) for wall in local])

    def _local(self, history: Timestamps) -> list[datetime]:
        """Of the recent stamps, the exchange's wall clock."""
        if not history.aware:
            return list(history.walls[-RECENT:])
        return [self._zoned(int(instant)) for instant in history.instants[-RECENT:]]

    def _walls(self, history: Timestamps, instants: Sequence[int]) -> list[datetime]:
        """Wall clocks at the last stamp's offset; without one, the exchange's."""
        if history.offset is None:
            return [self._zoned(instant) for instant in instants]
        offset = history.offset
        return [_EPOCH + timedelta(microseconds=instant) + offset for instant in instants]

    def _zoned(self, instant: int) -> datetime:
        utc = (_EPOCH + timedelta(microseconds=instant)).replace(tzinfo=UTC)
        return utc.astimezone(self.zone).replace(tzinfo=None)


class Calendars:
    """Builds each calendar once, in threads of its own, and keeps what came of it.

    Requests for one calendar wait for the same build, and for no other's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._built: dict[str, Future[Sessions | None]] = {}
        self._builders = ThreadPoolExecutor(BUILDERS, thread_name_prefix="calendar")

    async def following(
        self, code: str, history: Timestamps, horizon: int, freq: Frequency
    ) -> Timestamps:
        """The next `horizon` stamps in the sessions of exchange `code`; raises `InvalidFields`."""
        year = history.walls[-1].year
        last = LAST_YEAR - YEARS_AHEAD
        if not FIRST_YEAR <= year <= last:
            rule = (
                f"absent where timestamps end in {year}: calendars are known for those that end"
                f" from {FIRST_YEAR} to {last}"
            )
            raise invalid_field("calendar", rule)
        sessions = await self.sessions(code)
        first = sessions.days[0].item().year
        if first > year:
            rule = f"one that reaches back to {year}: {sessions.code} begins in {first}"
            raise invalid_field("calendar", rule)
        return await asyncio.to_thread(sessions.following, history, horizon, freq)

    async def sessions(self, code: str) -> Sessions:
        """All known sessions of exchange `code`, in any case; raises `InvalidFields`."""
        canonical = await asyncio.to_thread(canonical_code, code)
        with self._lock:
            build = self._built.get(canonical)
            if build is None:
                build = self._builders.submit(build_sessions, canonical)
                self._built[canonical] = build
        # Shielded: a caller that leaves must not cancel what others wait for.
        sessions = await asyncio.shield(asyncio.wrap_future(build))
        if sessions is None:
            raise invalid_field("calendar", f"one that can be built: {canonical} cannot")
        return sessions


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
"""Exchanges whose hours nobody records, and one that trades on the same days."""


@cache
def _names() -> dict[str, str]:
    """Codes and aliases in capitals, and the code that each stands for."""
    import exchange_calendars

    codes = exchange_calendars.get_calendar_names(include_aliases=False)
    aliases = exchange_calendars.aliases_to_names()
    return {code.upper(): code for code in codes} | {
        alias.upper(): code for alias, code in (ALIASES | aliases).items()
    }


def canonical_code(code: str) -> str:
    """The code of the calendar that `code` stands for; raises `InvalidFields` if there is none."""
    names = _names()
    if (known := names.get(code.upper())) is not None:
        return known
    if (same_days := NO_HOURS.get(code.upper())) is not None:
        raise invalid_field(
            "calendar",
            f"one whose hours are known: {code.upper()} is not. {same_days} trades on the same"
            " days, which is enough for daily candles",
        )
    near = difflib.get_close_matches(code.upper(), names, n=3, cutoff=0.5)
    raise invalid_field(
        "calendar",
        "the code of a known exchange, such as XNYS, XSHG, CRYPTO or FX"
        + (f"; spelt alike are {', '.join(near)}" if near else ""),
    )


def build_sessions(code: str) -> Sessions | None:
    """All known sessions of `code`, None if it cannot be built; takes up to two seconds."""
    try:
        return _sessions(code, _calendar(code))
    except Exception as error:
        # The package cannot build every calendar it lists with every release of pandas.
        log.warning("calendar cannot be built", calendar=code, error=str(error)[:200])
        return None


def _calendar(code: str) -> Any:
    """The calendar of `code` from `FIRST_YEAR` to `LAST_YEAR`, or for the years recorded."""
    import exchange_calendars
    from exchange_calendars.calendar_utils import global_calendar_dispatcher

    first, last = f"{FIRST_YEAR}-01-01", f"{LAST_YEAR}-12-31"
    try:
        try:
            return exchange_calendars.get_calendar(code, start=first, end=last)
        except ValueError:  # holidays are recorded for fewer years
            recent = exchange_calendars.get_calendar(code)
        if (bound := recent.bound_min()) is not None:
            first = max(first, f"{bound:%Y-%m-%d}")
        if (bound := recent.bound_max()) is not None:
            last = min(last, f"{bound:%Y-%m-%d}")
        try:
            return exchange_calendars.get_calendar(code, start=first, end=last)
        except ValueError:
            return recent
    finally:
        # The package keeps 2 MB of each calendar that it made; we keep 0.3 MB.
        global_calendar_dispatcher._factory_output_cache.pop(code, None)


def _sessions(code: str, calendar: Any) -> Sessions:
    """Only what is needed of a calendar: its own tables hold every minute."""
    schedule = calendar.schedule
    edges = {
        name: schedule[name].to_numpy(dtype="datetime64[us]")
        for name in ("open", "break_start", "break_end", "close")
    }
    pause = ~np.isnat(edges["break_start"])

    def ordered(first: NDArray[Any], second: NDArray[Any]) -> Instants:
        return np.sort(np.concatenate([first, second])).astype(np.int64)

    return Sessions(
        code=code,
        zone=calendar.tz,
        days=schedule.index.to_numpy(dtype="datetime64[D]"),
        opens=ordered(edges["open"], edges["break_end"][pause]),
        closes=ordered(edges["close"], edges["break_start"][pause]),
    )
