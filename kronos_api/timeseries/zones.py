"""Time zones: whether timestamps are written in one, and which one a history shows."""

from __future__ import annotations

from datetime import tzinfo
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from kronos_api.timeseries.timestamps import Timestamps, local_microseconds

CLOCKS: Final = (
    *("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    *("Europe/London", "Europe/Berlin", "Europe/Athens", "Asia/Jerusalem"),
    *("Australia/Sydney", "Pacific/Auckland", "America/Santiago"),
)
"""Zones whose clock is changed, one for each pair of offset and rule."""


def written_in(history: Timestamps, zone: tzinfo) -> bool:
    """Whether every timestamp has the offset of `zone` at its instant.

    Z and z stand for UTC, whose clock is never changed, even where `zone` has that offset.
    """
    if not history.aware or set(history.style.zone) <= {"Z", "z"}:
        return False
    return bool((local_microseconds(history.instants, zone) == history.local).all())


def changing_zone(history: Timestamps) -> tzinfo | None:
    """The zone in which `history` lived through a change of the clock; None if it shows none."""
    offsets = history.offsets
    if (offsets == offsets[-1]).all():
        return None
    return next((zone for zone in _zones() if written_in(history, zone)), None)


@cache
def _zones() -> tuple[ZoneInfo, ...]:
    return tuple(ZoneInfo(name) for name in CLOCKS)


def naive_in_gap(history: Timestamps, zone: tzinfo) -> int | None:
    """The index of the first naive timestamp that clocks in `zone` skip; None if there is none."""
    index = pd.DatetimeIndex(history.local.view("M8[us]"))
    first = np.ones(len(index), dtype=np.bool_)
    missing = index.tz_localize(zone, ambiguous=first, nonexistent="NaT").isna()
    return int(missing.argmax()) if missing.any() else None
