"""Zones of timestamps: the one they are written in, and the times that its clock skips."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pytest

from kronos_api.timeseries import parse_timestamps
from kronos_api.timeseries.zones import CLOCKS, changing_zone, naive_in_gap, written_in

NEW_YORK = ZoneInfo("America/New_York")
LONDON = ZoneInfo("Europe/London")


@pytest.mark.parametrize(
    ("texts", "zone", "expected"),
    [
        (["2025-03-07T10:00-05:00"], NEW_YORK, True),
        (["2025-03-07T10:00-05:00", "2025-03-10T10:00-04:00"], NEW_YORK, True),
        (["2025-03-07T10:00-05:00", "2025-03-10T09:00-05:00"], NEW_YORK, False),
        (["2025-03-07T10:00+00:00"], LONDON, True),
        (["2025-03-07T10:00Z"], LONDON, False),
        (["2025-03-07T10:00"], LONDON, False),
        (["2025-07-07T10:00+01:00"], LONDON, True),
    ],
)
def test_timestamps_are_written_in_a_zone(texts: list[str], zone: ZoneInfo, expected: bool) -> None:
    assert written_in(parse_timestamps(texts, "timestamps"), zone) == expected


@pytest.mark.parametrize("name", CLOCKS)
def test_a_change_of_the_clock_tells_the_zone(name: str) -> None:
    zone = ZoneInfo(name)
    like = parse_timestamps(["2024-12-30T12:00+00:00"], "timestamps")
    days = like.instants[-1] + 86_400_000_000 * np.arange(200)
    history = like.continued_in(zone, days)
    assert changing_zone(history) == zone
    winter = parse_timestamps(history.texts[:30], "timestamps")
    assert changing_zone(winter) is None


def test_a_naive_time_that_the_clock_skips_is_found() -> None:
    texts = ["2025-03-09T01:30", "2025-03-09T02:30", "2025-03-09T03:30"]
    assert naive_in_gap(parse_timestamps(texts, "timestamps"), NEW_YORK) == 1
    assert naive_in_gap(parse_timestamps(texts, "timestamps"), LONDON) is None
