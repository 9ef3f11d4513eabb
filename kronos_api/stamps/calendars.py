"""Trading hours: stamps that only fall into the sessions of an exchange.

Holidays, half days and lunch breaks are those of the `exchange_calendars` package, which is
imported when the first calendar is asked for. Daily bars have one stamp a session, at the last
stamp's time of day. Intraday bars start anew at each opening, also after a lunch break; the last
bar before a close may be short. They are labelled with their start, unless more stamps of the
history fall on closing than on opening times: then with their end.
"""

from __future__ import annotations

import asyncio
import difflib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from kronos_api.stamps.frequency import Frequency
from kronos_api.stamps.refusal import refusal
from kronos_api.stamps.series import Instants, Stamps, microseconds

YEARS_AHEAD: Final = 3
"""A calendar reaches to the end of this many years after the last stamp's: over 512 sessions."""
RECENT: Final = 256
"""Stamps of the history that are looked at to see how they are labelled."""
CACHED: Final = 32
"""Calendars kept; each takes some 50 kB and up to two seconds to build."""

_EPOCH = datetime(1970, 1, 1)

log = structlog.stdlib.get_logger("kronos_api.calendars")


@dataclass(frozen=True, slots=True, eq=False)
class Sessions:
    """The sessions of one exchange over some years, in order.

    `opens` and `closes` are microseconds since 1970 UTC, int64 [segments]: a session with a
    lunch break has two segments.
    """

    code: str
    zone: tzinfo
    days: Sequence[date]
    opens: Instants
    closes: Instants

    def following(self, history: Stamps, horizon: int, freq: Frequency) -> Stamps:
        """The next `horizon` stamps after `history`; raises `Refusal`."""
        if freq.daily:
            walls = self._daily(history, horizon)
        elif freq.intraday and freq.step is not None:
            walls = self._intraday(history, horizon, freq.step)
        else:
            raise refusal("freq", "shorter than a day, 1D or B where a calendar is given")
        if len(walls) < horizon:
            rule = f"one that reaches over the horizon: {self.code} ends on {self.days[-1]}"
            raise refusal("calendar", rule)
        return history.continued(walls)

    def _daily(self, history: Stamps, horizon: int) -> list[datetime]:
        known = set(self.days)
        as_written = list(history.walls[-RECENT:])
        local = self._local(history)
        # 15:00Z may be written for a day that began at midnight in Tokyo.
        shifted = sum(wall.date() in known for wall in local) > sum(
            wall.date() in known for wall in as_written
        )
        last = (local if shifted else as_written)[-1]
        days = [day for day in self.days if day > last.date()][:horizon]
        walls = [datetime.combine(day, last.time()) for day in days]
        if not shifted:
            return walls
        instants = [wall.replace(tzinfo=self.zone).astimezone(UTC) for wall in walls]
        offset = history.offset or timedelta()
        return [instant.replace(tzinfo=None) + offset for instant in instants]

    def _intraday(self, history: Stamps, horizon: int, step: timedelta) -> list[datetime]:
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

    def _instants(self, history: Stamps) -> Instants:
        """Of the recent stamps; those without an offset are read as the exchange's local time."""
        if history.aware:
            return history.instants[-RECENT:]
        local = (wall.replace(tzinfo=self.zone) for wall in history.walls[-RECENT:])
        return microseconds([wall.astimezone(UTC).replace(tzinfo=None) for wall in local])

    def _local(self, history: Stamps) -> list[datetime]:
        """Of the recent stamps, the exchange's wall clock."""
        if not history.aware:
            return list(history.walls[-RECENT:])
        return [self._zoned(int(instant)) for instant in history.instants[-RECENT:]]

    def _walls(self, history: Stamps, instants: Sequence[int]) -> list[datetime]:
        """Wall clocks at the last stamp's offset; without one, the exchange's."""
        if history.offset is None:
            return [self._zoned(instant) for instant in instants]
        offset = history.offset
        return [_EPOCH + timedelta(microseconds=instant) + offset for instant in instants]

    def _zoned(self, instant: int) -> datetime:
        utc = (_EPOCH + timedelta(microseconds=instant)).replace(tzinfo=UTC)
        return utc.astimezone(self.zone).replace(tzinfo=None)


class Calendars:
    """Builds calendars in a thread, one at a time, and keeps the last used."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[str, int], Sessions] = OrderedDict()
        self._building = asyncio.Lock()

    async def following(self, code: str, history: Stamps, horizon: int, freq: Frequency) -> Stamps:
        """The next `horizon` stamps in the sessions of exchange `code`; raises `Refusal`."""
        sessions = await self.sessions(code, history.walls[-1].year)
        return await asyncio.to_thread(sessions.following, history, horizon, freq)

    async def sessions(self, code: str, year: int) -> Sessions:
        """The sessions of `code` from the year before `year` on; raises `Refusal`."""
        key = (code.upper(), year)
        if key not in self._cache:
            async with self._building:
                if key not in self._cache:
                    self._cache[key] = await asyncio.to_thread(build_sessions, *key)
                    if len(self._cache) > CACHED:
                        self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


def build_sessions(code: str, year: int) -> Sessions:
    """The sessions of `code` around `year`; takes up to seconds. Raises `Refusal`."""
    import exchange_calendars

    names = exchange_calendars.get_calendar_names(include_aliases=True)
    if code not in names:
        near = difflib.get_close_matches(code, names, n=3, cutoff=0.5)
        raise refusal(
            "calendar",
            "the code of a known exchange" + (f", such as {', '.join(near)}" if near else ""),
        )
    start, end = f"{year - 1}-01-01", f"{year + YEARS_AHEAD}-12-31"
    try:
        try:
            calendar = exchange_calendars.get_calendar(code, start=start, end=end)
        except ValueError:  # holidays are recorded for fewer years: take those that are
            calendar = exchange_calendars.get_calendar(code)
    except Exception as error:
        # The package cannot build every calendar it lists with every release of pandas.
        log.warning("calendar cannot be built", calendar=code, year=year, error=str(error)[:200])
        raise refusal("calendar", f"one that can be built: {code} cannot") from None
    if calendar.first_session.year > year:
        raise refusal("calendar", f"one that reaches back to {year}: {code} does not")
    return _sessions(code, calendar)


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
        days=[day.date() for day in schedule.index],
        opens=ordered(edges["open"], edges["break_end"][pause]),
        closes=ordered(edges["close"], edges["break_start"][pause]),
    )
