"""The list of calendars as it goes out."""

from __future__ import annotations

from kronos_api.schemas.responses import ResponseModel


class TradingHours(ResponseModel):
    """The regular hours of a session, HH:MM in the exchange's time zone."""

    open: str
    close: str
    """24:00: at the end of the day."""
    opens_day_before: bool
    """Whether a session opens on the evening before its date."""
    break_start: str | None
    """Of the lunch break; null: trade runs through."""
    break_end: str | None


class CalendarDescription(ResponseModel):
    """A calendar that requests may name."""

    code: str
    """As `calendar` takes it, in any case."""
    aliases: list[str]
    """Other names that `calendar` takes for it."""
    name: str
    country: str
    time_zone: str
    """In which timestamps without an offset are read."""
    hours: TradingHours
    """Holidays and half days are kept as well, and hours of the past where they differed."""


class CalendarList(ResponseModel):
    """The calendars that requests may name, by code."""

    calendars: list[CalendarDescription]
    first_year: int
    """Histories may end from here ..."""
    last_year: int
    """... to here; some exchanges record fewer years."""
