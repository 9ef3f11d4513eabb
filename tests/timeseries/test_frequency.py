"""Steps: named, seen in a history, and repeated."""

from __future__ import annotations

from datetime import datetime, timedelta

import pandas as pd
import pytest

from kronos_api.timeseries import Timestamps, infer_frequency, parse_frequency, parse_timestamps
from kronos_api.violations import InvalidFields


def history(*texts: str) -> Timestamps:
    return parse_timestamps(texts, "timestamps")


def regular(start: str, freq: str, periods: int = 30) -> Timestamps:
    return history(
        *(f"{day:%Y-%m-%dT%H:%M:%S}" for day in pd.date_range(start, periods=periods, freq=freq))
    )


MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
NAMES = [
    *("s", "90s", "min", "5min", "h", "4h", "24h", "D", "1D", "366D", "B", "5B", "W", "52W"),
    *(f"W-{day}" for day in ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")),
    *("MS", "ME", "BMS", "BME", "12MS", "QS", "QE", "BQS", "BQE", "YS", "YE", "BYS", "BYE"),
    *(f"{unit}-{month}" for unit in ("QS", "BQE", "YE", "BYS") for month in MONTHS),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_is_taken_is_one_of_pandas(name: str) -> None:
    last = datetime(2025, 3, 5, 9, 30)
    stamps = history(f"{last:%Y-%m-%d %H:%M}")
    future = parse_frequency(name).following(stamps, 5)
    days = [day for day in pd.date_range(last, periods=6, freq=name) if day > last]
    assert list(future.datetimes) == [day.to_pydatetime() for day in days[:5]]
    assert future.instants[0] > stamps.instants[-1]


@pytest.mark.parametrize(
    ("name", "same"),
    [
        *(
            ("1m", "1min"),
            ("5T", "5min"),
            ("T", "min"),
            ("15MIN", "15min"),
            ("1H", "1h"),
            ("1d", "1D"),
            ("60S", "60s"),
        ),
        *(
            ("15MIN", "15min"),
            ("1w", "7D"),
            ("2wk", "14D"),
            ("Q", "QE"),
            ("Y", "YE"),
            ("A-JAN", "YE-JAN"),
        ),
    ],
)
def test_names_of_others_are_taken(name: str, same: str) -> None:
    stamps = history("2025-03-05 09:30", "2025-03-05 09:31")
    assert parse_frequency(name).following(stamps, 3).texts == (
        parse_frequency(same).following(stamps, 3).texts
    )


def test_a_lone_m_is_neither_minutes_nor_months() -> None:
    with pytest.raises(InvalidFields, match="1m or min for a minute, 1mo or ME for a month"):
        parse_frequency("m")


@pytest.mark.parametrize("name", ["1mo", "M", "1M"])
@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (("2024-11-01", "2024-12-01", "2025-01-01"), ("2025-02-01", "2025-03-01")),
        (("2024-11-30", "2024-12-31", "2025-01-31"), ("2025-02-28", "2025-03-31")),
        (("2024-11-29", "2024-12-31", "2025-01-27"), ("2025-02-28", "2025-03-31")),
        (("2024-11-15", "2024-12-15", "2025-01-15"), ("2025-02-15", "2025-03-15")),
    ],
)
def test_months_go_on_as_the_history_has_them(
    name: str, days: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert tuple(parse_frequency(name).following(history(*days), 2).texts) == expected


@pytest.mark.parametrize("name", ["ME", "BME"])
def test_a_month_that_ended_early_is_not_repeated(name: str) -> None:
    stamps = history("2024-12-31", "2025-01-27")
    assert parse_frequency(name).following(stamps, 1).texts == ["2025-02-28"]


def test_months_of_trading_days_are_inferred() -> None:
    days = ("2024-10-31", "2024-11-29", "2024-12-31", "2025-01-27")
    step = infer_frequency(history(*days))
    assert (step.text, step.following(history(*days), 2).texts) == (
        "BME",
        ["2025-02-28", "2025-03-31"],
    )


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "x", "5", "-5min", "0min", "0B", "1.5h", "5 min", "min5", "x5"),
        *("ms", "us", "ns", "100ms", "31622401s", "8785h", "367D", "53W", "14MS", "5QE", "2YE"),
        *("999999999s", "99999999YE", "W-XXX", "QE-FOO", "WOM-3FRI", "bh", "C", "1h30min", "1D\n"),
    ],
)
def test_every_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidFields, match="freq must be a step of one second to one year"):
        parse_frequency(name)


@pytest.mark.parametrize(
    ("stamps", "freq", "expected"),
    [
        (history("2025-01-31"), "ME", ["2025-02-28", "2025-03-31"]),
        (history("2025-01-15"), "ME", ["2025-01-31", "2025-02-28"]),
        (history("2025-01-04"), "B", ["2025-01-06", "2025-01-07"]),
        (history("2025-01-03"), "B", ["2025-01-06", "2025-01-07"]),
        (history("2025-01-03"), "W-FRI", ["2025-01-10", "2025-01-17"]),
        (history("2024-02-29T16:00-05:00"), "YS", ["2025-01-01T16:00-05:00"]),
        (history("2025-01-01T00:00:00.25Z"), "1s", ["2025-01-01T00:00:01.25Z"]),
        (history("2200-12-31"), "YE", ["2201-12-31"]),
    ],
)
def test_what_follows(stamps: Timestamps, freq: str, expected: list[str]) -> None:
    assert list(parse_frequency(freq).following(stamps, len(expected)).texts) == expected


@pytest.mark.parametrize(
    ("stamps", "name"),
    [
        (regular("2025-03-03", "15min"), "900s"),
        (regular("2025-03-03", "1s"), "1s"),
        (regular("2025-03-03", "4h"), "14400s"),
        (regular("2025-03-03", "1D"), "1D"),
        (regular("2025-03-03", "1D", periods=5), "1D"),
        (regular("2025-03-03", "3D"), "3D"),
        (regular("2025-03-03", "36h"), "129600s"),
        (regular("2025-03-03", "B"), "B"),
        (regular("2025-03-06", "B", periods=4), "B"),
        (regular("2025-03-07", "W-FRI"), "7D"),
        (regular("2025-01-01", "MS"), "MS"),
        (regular("2025-01-31", "ME"), "ME"),
        (regular("2025-01-01", "BMS"), "BMS"),
        (regular("2025-01-01", "QS"), "QS-JAN"),
        (regular("2025-02-28", "BQE-FEB"), "BQE-FEB"),
        (regular("2025-01-01", "YS"), "YS-JAN"),
        (regular("1970-06-30", "YE-JUN"), "YE-JUN"),
        (regular("2025-03-03", "28D"), "28D"),
        (history("2025-01-31", "2025-02-28", "2025-03-31", "2025-06-30", "2025-07-31"), "ME"),
        # gaps do no harm: a session a day, a holiday, a candle that is missing
        (history(*(f"2025-03-{d:02}T{h:02}:30" for d in (3, 4, 6) for h in range(9, 16))), "3600s"),
        (history("2025-03-03", "2025-03-04", "2025-03-06", "2025-03-07", "2025-03-10"), None),
        (history("2025-03-05", "2025-03-06", "2025-03-07", "2025-03-10", "2025-03-11"), "B"),
        # months and years, but not their first or last days: a number of days would drift
        (history(*(f"2025-{month:02}-15" for month in range(1, 13))), None),
        (regular("2023-01-01", "WOM-3FRI"), None),
        (regular("2022-02-01", "2MS"), None),
        (history(*(f"{year}-02-10" for year in range(2001, 2012))), None),
        # clocks go forward
        (
            history("2025-03-30T01:00+01:00", "2025-03-30T03:00+02:00", "2025-03-30T04:00+02:00"),
            "3600s",
        ),
        (history("2025-03-03", "2025-03-04"), None),
        (history("2025-03-03", "2025-03-04", "2025-03-08"), None),
        (history("2025-01-01", "2025-02-05", "2025-03-17"), None),
        (history("2025-03-03T00:00:00.0", "2025-03-03T00:00:00.5", "2025-03-03T00:00:01"), None),
        (history("2025-03-03T00:00:00", "2025-03-03T00:00:01.5", "2025-03-03T00:00:03"), None),
    ],
)
def test_what_is_seen_in_a_history(stamps: Timestamps, name: str | None) -> None:
    if name is None:
        with pytest.raises(InvalidFields, match="freq must be given"):
            infer_frequency(stamps)
        return
    seen = infer_frequency(stamps)
    assert seen.text == name
    step = seen.following(stamps, 1).instants[0] - stamps.instants[-1]
    assert timedelta(0) < timedelta(microseconds=int(step)) <= timedelta(days=366)


@pytest.mark.parametrize(
    ("texts", "freq", "expected"),
    [
        # a history that lived through a change of the clock lives through the next one
        (
            ("2025-03-30T01:00+01:00", "2025-03-30T03:00+02:00", "2025-10-26T01:00+02:00"),
            "1h",
            ["2025-10-26T02:00+02:00", "2025-10-26T02:00+01:00", "2025-10-26T03:00+01:00"],
        ),
        (
            ("2024-11-01T00:00:00-0400", "2024-11-04T00:00:00-0500", "2025-03-07T00:00:00-0500"),
            "B",
            ["2025-03-10T00:00:00-0400", "2025-03-11T00:00:00-0400"],
        ),
        # one that shows none stays at its offset, and so does one of no known zone
        (("2025-03-07T23:00-05:00",), "12h", ["2025-03-08T11:00-05:00", "2025-03-08T23:00-05:00"]),
        (
            ("2024-11-01T00:00-07:30", "2025-03-07T00:00-08:00"),
            "1D",
            ["2025-03-08T00:00-08:00", "2025-03-09T00:00-08:00", "2025-03-10T00:00-08:00"],
        ),
    ],
)
def test_the_offset_follows_the_clock_that_the_history_shows(
    texts: tuple[str, ...], freq: str, expected: list[str]
) -> None:
    future = parse_frequency(freq).following(history(*texts), len(expected))
    assert list(future.texts) == expected
    assert (future.instants == parse_timestamps(future.texts, "x").instants).all()


def test_a_history_goes_on_as_it_went() -> None:
    for freq in ("15min", "B", "W-FRI", "ME", "QS", "YE"):
        whole = regular("2024-01-31", freq, periods=40)
        seen = parse_timestamps(whole.texts[:30], "timestamps")
        future = infer_frequency(seen).following(seen, 10)
        assert list(future.texts) == list(whole.texts[30:]), freq


def test_step_of_month_starts_goes_on_with_the_next_one() -> None:
    history = parse_timestamps(["2025-01-20", "2025-02-20", "2025-03-20"], "timestamps")
    following = parse_frequency("MS").following(history, 2)
    assert list(following.texts) == ["2025-04-01", "2025-05-01"]
