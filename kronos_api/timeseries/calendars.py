"""The calendars of exchanges, each built once.

Holidays, half days and lunch breaks are those of the `exchange_calendars` package, which is
imported when the first calendar is asked for. Each calendar is built over all years that a request
may ask for: 67 years of XNYS take as long as 5 (0.12 s), so requests for other years cause no
further work. All 71 calendars together take 7 s and 20 MB.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import structlog

from kronos_api.timeseries.bars import BarLabel
from kronos_api.timeseries.exchanges import canonical_code
from kronos_api.timeseries.frequency import Frequency
from kronos_api.timeseries.gaps import Continuation
from kronos_api.timeseries.sessions import Sessions
from kronos_api.timeseries.timestamps import Instants, Timestamps
from kronos_api.violations import invalid_field

FIRST_YEAR: Final = 1970
"""The first year of every calendar, and the first in which a history may end."""
LAST_YEAR: Final = datetime.now(UTC).year + 10
"""The last year of every calendar."""
YEARS_AHEAD: Final = 3
"""512 sessions after a history end within so many years."""
BUILDERS: Final = 2
"""Calendars built at one time. Building holds the interpreter's lock, so more would be no faster
and would slow down the event loop; the second lets XNYS (0.1 s) pass XKRX (1.7 s)."""

log = structlog.stdlib.get_logger("kronos_api.calendars")


class Calendars:
    """Builds each calendar once, in threads of its own, and keeps the result.

    Requests for one calendar wait for the same build, and for no other's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._built: dict[str, Future[Sessions | None]] = {}
        self._builders = ThreadPoolExecutor(BUILDERS, thread_name_prefix="calendar")

    async def following(
        self,
        code: str,
        history: Timestamps,
        horizon: int,
        freq: Frequency,
        label: BarLabel | None = None,
    ) -> Continuation:
        """The next `horizon` timestamps in the sessions of exchange `code`.

        `label` is the end of its bar that a timestamp names; None: as the history shows. Raises
        `InvalidFields`.
        """
        year = history.datetimes[-1].year
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
        return await asyncio.to_thread(sessions.following, history, horizon, freq, label)

    async def sessions(self, code: str) -> Sessions:
        """All known sessions of exchange `code`, in any case; raises `InvalidFields`."""
        canonical = await asyncio.to_thread(canonical_code, code)
        with self._lock:
            build = self._built.get(canonical)
            if build is None:
                build = self._builders.submit(build_sessions, canonical)
                self._built[canonical] = build
        # Shielded: a caller that leaves must not cancel a build that others wait for.
        sessions = await asyncio.shield(asyncio.wrap_future(build))
        if sessions is None:
            raise invalid_field("calendar", f"one that can be built: {canonical} cannot")
        return sessions


def build_sessions(code: str) -> Sessions | None:
    """All known sessions of `code`, None if it cannot be built; takes up to two seconds."""
    try:
        return _sessions(code, _calendar(code))
    except Exception as error:
        # The package cannot build every calendar it lists with every release of pandas.
        log.warning("calendar_build_failed", calendar=code, error=str(error)[:200])
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
    opens, pauses, resumes, closes = (
        schedule[name].to_numpy(dtype="datetime64[us]")
        for name in ("open", "break_start", "break_end", "close")
    )
    paused = ~np.isnat(pauses)
    pauses, resumes = np.where(paused, pauses, closes), np.where(paused, resumes, closes)
    # Sessions that follow each other without a pause are one: bars run through.
    joined = closes[:-1] == opens[1:]
    first, last = np.append(True, ~joined), np.append(~joined, True)

    def instants(times: Any, kept: Any) -> Instants:
        kept_times: Instants = times[kept].astype(np.int64)
        return kept_times

    return Sessions(
        code=code,
        zone=calendar.tz,
        days=schedule.index.to_numpy(dtype="datetime64[D]"),
        opens=instants(opens, first),
        pauses=instants(pauses, last),
        resumes=instants(resumes, last),
        closes=instants(closes, last),
    )
