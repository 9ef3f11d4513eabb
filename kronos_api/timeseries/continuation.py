"""A history and the timestamps that follow it, as a caller asks for them."""

from __future__ import annotations

from kronos_api.timeseries.bars import BarLabel
from kronos_api.timeseries.calendars import Calendars
from kronos_api.timeseries.frequency import infer_frequency, parse_frequency
from kronos_api.timeseries.gaps import Continuation, find_gaps
from kronos_api.timeseries.timestamps import Timestamps


async def continue_history(
    calendars: Calendars,
    history: Timestamps,
    horizon: int,
    freq: str | None,
    calendar: str | None,
    bar_label: BarLabel | None,
) -> Continuation:
    """The next `horizon` timestamps; raises `InvalidFields`.

    freq: None to infer it. calendar: None for steps that go on over nights and weekends.
    """
    step = infer_frequency(history) if freq is None else parse_frequency(freq)
    if calendar is None:
        return Continuation(step.following(history, horizon), find_gaps(history))
    return await calendars.following(calendar, history, horizon, step, bar_label)
