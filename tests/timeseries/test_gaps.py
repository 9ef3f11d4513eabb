"""Gaps of a history without a calendar: what is missing, and what is explained."""

from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pytest

from kronos_api.timeseries import Gaps, find_gaps, parse_timestamps


def gaps(texts: list[str]) -> Gaps | None:
    return find_gaps(parse_timestamps(texts, "timestamps"))


def regular(start: str, freq: str, periods: int, form: str = "%Y-%m-%dT%H:%M") -> list[str]:
    return [f"{at:{form}}" for at in pd.date_range(start, periods=periods, freq=freq)]


def sessions(
    days: list[str], start: str, end: str, freq: str, zone: str | None = None
) -> list[str]:
    stamps = [
        at
        for day in days
        for at in pd.date_range(f"{day} {start}", f"{day} {end}", freq=freq, tz=zone)
    ]
    return [at.tz_convert("UTC").isoformat() if zone else at.isoformat() for at in stamps]


def weekdays(start: str, periods: int) -> list[str]:
    return regular(start, "B", periods, "%Y-%m-%d")


def lunch(day: str) -> list[str]:
    return sessions([day], "09:35", "11:30", "5min") + sessions([day], "13:05", "15:00", "5min")


@pytest.mark.parametrize(
    "texts",
    [
        regular("2025-03-03", "15min", 400),
        weekdays("2025-03-03", 30),
        regular("2025-01-31", "ME", 30, "%Y-%m-%d"),
        regular("2025-01-03", "W-FRI", 30, "%Y-%m-%d"),
        # nights, also a single one, and weekends
        sessions(weekdays("2025-03-03", 10), "09:30", "15:45", "15min"),
        sessions(["2025-03-06", "2025-03-07"], "09:30", "15:45", "15min"),
        sessions(["2025-03-07", "2025-03-10"], "09:30", "15:45", "15min"),
        # lunch breaks that recur
        [text for day in weekdays("2025-03-03", 4) for text in lunch(day)],
        # in UTC nights move by an hour when the clock is changed
        sessions(weekdays("2025-03-03", 12), "09:30", "15:45", "15min", "America/New_York"),
        # in UTC the sessions of Auckland cross midnight, and nights do not
        sessions(weekdays("2025-06-02", 8), "10:00", "16:40", "20min", "Pacific/Auckland"),
        # sessions that begin on Sunday evening, with an hour's break a day
        [
            f"{at:%Y-%m-%dT%H:%M}"
            for at in pd.date_range("2025-03-02 17:00", "2025-03-21 15:00", freq="1h")
            if at.hour != 16
            and not (at.weekday() == 4 and at.hour > 15)
            and at.weekday() != 5
            and not (at.weekday() == 6 and at.hour < 17)
        ],
        # naive local times skip the hour by which the clock is put forward
        [text for text in regular("2025-03-08", "1h", 60) if text != "2025-03-09T02:00"],
        # too few to tell
        ["2025-03-03", "2025-03-09"],
        ["2025-03-03"],
    ],
)
def test_what_is_no_gap(texts: list[str]) -> None:
    assert gaps(texts) is None


@pytest.mark.parametrize(
    ("texts", "count", "missing", "longest", "after"),
    [
        # two hours of a day
        (
            regular("2025-03-03", "5min", 60)[:20] + regular("2025-03-03", "5min", 60)[44:],
            *(1, 24, timedelta(hours=2, minutes=5), 19),
        ),
        # one candle, twice
        (
            [
                text
                for text in regular("2025-03-03", "1h", 60)
                if text[8:13] not in ("03T07", "04T09")
            ],
            *(2, 2, timedelta(hours=2), 6),
        ),
        # a day of a market that never closes, and a Saturday of it
        (
            [text for text in regular("2025-03-03", "1D", 40, "%Y-%m-%d") if text[5:] != "03-12"],
            *(1, 1, timedelta(days=2), 8),
        ),
        (
            [text for text in regular("2025-03-03", "1h", 400) if text[:10] != "2025-03-08"],
            *(1, 24, timedelta(hours=25), 119),
        ),
        # a weekday without a calendar: perhaps a holiday
        (
            [day for day in weekdays("2025-03-03", 20) if day != "2025-03-17"],
            *(1, 1, timedelta(days=4), 9),
        ),
        (
            sessions(
                [day for day in weekdays("2025-03-03", 8) if day != "2025-03-05"],
                *("09:30", "15:30", "1h"),
            ),
            *(1, 7, timedelta(hours=42), 13),
        ),
        # a weekend that is too long
        (
            sessions(
                ["2025-03-05", "2025-03-06", "2025-03-07", "2025-03-12"], "09:30", "15:30", "1h"
            ),
            *(1, 14, timedelta(hours=114), 20),
        ),
        # weeks
        (
            [day for day in regular("2025-01-03", "W-FRI", 30, "%Y-%m-%d") if day[5:7] != "03"],
            *(1, 4, timedelta(days=35), 8),
        ),
        # the afternoon of one of several days
        (
            [
                text
                for text in sessions(weekdays("2025-03-03", 4), "09:30", "15:45", "15min")
                if not "2025-03-04T12:00" <= text <= "2025-03-04T23"
            ],
            *(1, 16, timedelta(hours=21, minutes=45), 35),
        ),
    ],
)
def test_what_is_a_gap(
    texts: list[str], count: int, missing: int, longest: timedelta, after: int
) -> None:
    assert gaps(texts) == Gaps(count, missing, longest, after)


def test_irregular_seconds_do_not_multiply_the_missing_candles() -> None:
    start, day, texts = datetime(2025, 6, 2), 288, []
    for number in range(7 * day):
        if not 3 * day < number <= 3 * day + 24:
            second = number * 37 % 60
            at = start + timedelta(minutes=5 * number, seconds=second)
            texts.append(f"{at.isoformat()}Z")
    gaps = find_gaps(parse_timestamps(texts, "timestamps"))
    assert gaps is not None
    assert gaps.count == 1
    assert gaps.missing == pytest.approx(24, abs=3)
