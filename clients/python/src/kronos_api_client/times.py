"""Timestamps as the service writes them, and as frames hold them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any


def write_timestamps(times: Sequence[datetime]) -> list[str]:
    """`times` as RFC 3339 texts of one form, with their offsets if they have a time zone."""
    precision = "microseconds" if any(time.microsecond for time in times) else "seconds"
    return [time.isoformat(timespec=precision) for time in times]


def read_timestamps(texts: Sequence[str], zone: tzinfo | None, last: str | None) -> list[datetime]:
    """The future timestamps `texts` in `zone`; naive if it is None.

    The service continues a history at the offset of its `last` timestamp. Bars of a day or longer
    keep their local time instead, so that midnight stays midnight when daylight saving time begins:
    they are those that all have the time of day of `last`.
    """
    times = [datetime.fromisoformat(text) for text in texts]
    if zone is None:
        return times
    if last is not None:
        clock = datetime.fromisoformat(last).time()
        if all(time.time() == clock for time in times):
            times = [_localized(time.replace(tzinfo=None), zone) for time in times]
    # By way of UTC, because a local time may not exist.
    return [time.astimezone(UTC).astimezone(zone) for time in times]


def _localized(time: datetime, zone: tzinfo) -> datetime:
    localize: Any = getattr(zone, "localize", None)  # pytz
    localized: datetime = time.replace(tzinfo=zone) if localize is None else localize(time)
    return localized
