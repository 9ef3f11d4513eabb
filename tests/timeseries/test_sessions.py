"""Histories go on in the sessions of exchanges, in their own phase and offset."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kronos_api.timeseries import (
    BarLabel,
    Calendars,
    Continuation,
    parse_frequency,
    parse_timestamps,
)
from kronos_api.timeseries import calendars as module
from kronos_api.timeseries.calendars import build_sessions
from kronos_api.timeseries.sessions import Sessions
from kronos_api.violations import InvalidFields

CALENDARS = Calendars()


async def continued(
    code: str, texts: list[str], freq: str, horizon: int, label: str | None = None
) -> Continuation:
    history = parse_timestamps(texts, "timestamps")
    end = BarLabel(label) if label else None
    return await CALENDARS.following(code, history, horizon, parse_frequency(freq), end)


async def following(
    code: str, texts: list[str], freq: str, horizon: int, label: str | None = None
) -> list[str]:
    return list((await continued(code, texts, freq, horizon, label)).timestamps.texts)


def day(date: str, *clocks: str) -> list[str]:
    return [f"{date}T{clock}" for clock in clocks]


def every(minutes: int, date: str, start: str, end: str, offset: str = "") -> list[str]:
    first, last = (datetime.fromisoformat(f"{date}T{clock}") for clock in (start, end))
    count = (last - first) // timedelta(minutes=minutes)
    return [
        f"{first + timedelta(minutes=minutes) * n:%Y-%m-%dT%H:%M}{offset}" for n in range(count + 1)
    ]


@pytest.mark.parametrize(
    ("code", "texts", "freq", "expected"),
    [
        # a half day, then Christmas
        (
            "XNYS",
            ["2024-12-24T12:00:00"],
            "30min",
            ["2024-12-24T12:30:00", "2024-12-26T09:30:00", "2024-12-26T10:00:00"],
        ),
        # the code in another case, an offset, a week-end
        (
            "xnys",
            ["2025-03-07T15:30:00-05:00"],
            "15min",
            ["2025-03-07T15:45:00-05:00", "2025-03-10T09:30:00-04:00"],
        ),
        ("NYSE", ["2025-03-07T19:30:00Z"], "1h", ["2025-03-07T20:30:00Z", "2025-03-10T13:30:00Z"]),
        # bars begin at each opening, also after lunch
        (
            "XHKG",
            ["2025-03-05T11:00"],
            "30min",
            ["2025-03-05T11:30", "2025-03-05T13:00", "2025-03-05T13:30"],
        ),
        ("XHKG", ["2024-12-24T11:30"], "30min", ["2024-12-27T09:30"]),
        # bars labelled with their end: 16:00 is a close
        (
            "XNYS",
            ["2025-03-06T15:30", "2025-03-06T16:00", "2025-03-07T15:30"],
            "30min",
            ["2025-03-07T16:00", "2025-03-10T10:00"],
        ),
        # of seven hours the last is half of one, either way
        ("XNYS", ["2025-03-06T14:30"], "1h", ["2025-03-06T15:30", "2025-03-07T09:30"]),
        (
            "XNYS",
            ["2025-03-05T16:00", "2025-03-06T15:30"],
            "1h",
            ["2025-03-06T16:00", "2025-03-07T10:30"],
        ),
        # a bar longer than a session: one for each
        ("XNYS", ["2025-03-06T09:30"], "12h", ["2025-03-07T09:30", "2025-03-10T09:30"]),
        # days: holidays, the time of day kept, the date as written
        ("XNYS", ["2024-12-24"], "1D", ["2024-12-26", "2024-12-27", "2024-12-30"]),
        ("XNYS", ["2025-03-07T00:00:00Z"], "B", ["2025-03-10T00:00:00Z"]),
        ("XNYS", ["2025-03-07T16:00:00-05:00"], "1D", ["2025-03-10T16:00:00-04:00"]),
        # days of Tokyo that are written in UTC begin the evening before
        (
            "XTKS",
            ["2025-03-02T15:00:00Z", "2025-03-05T15:00:00Z", "2025-03-06T15:00:00Z"],
            "1D",
            ["2025-03-09T15:00:00Z", "2025-03-10T15:00:00Z"],
        ),
        # no session is missing round the clock
        ("24/7", ["2025-03-08T23:00:00Z"], "1h", ["2025-03-09T00:00:00Z", "2025-03-09T01:00:00Z"]),
        # sessions that begin the evening before
        ("CMES", ["2025-03-07T15:00"], "1h", ["2025-03-07T16:00", "2025-03-09T17:00"]),
        # the clocks of New York go forward on 9 March, its local time does not care
        ("XNYS", ["2025-03-07T15:59:00"], "1min", ["2025-03-10T09:30:00"]),
    ],
)
async def test_bars_go_on_from_the_opening(
    code: str, texts: list[str], freq: str, expected: list[str]
) -> None:
    assert await following(code, texts, freq, len(expected)) == expected


@pytest.mark.parametrize("freq", ["1D", "1s", "5min", "12h"])
async def test_the_longest_horizon(freq: str) -> None:
    texts = await following("XNYS", ["2025-12-30T15:00:00"], freq, 512)
    assert len(set(texts)) == 512
    parse_timestamps(texts, "prediction_timestamps")  # ascends


@pytest.mark.parametrize(
    ("code", "text", "freq", "field", "constraint"),
    [
        ("XNYX", "2025-03-07", "1D", "calendar", "a known exchange, such as XNYS"),
        ("qqqqqqqq", "2025-03-07", "1D", "calendar", "the code of a known exchange"),
        ("XNYS", "2025-03-07", "MS", "freq", "shorter than a day, 1D or B where a calendar"),
        ("XNYS", "2025-03-07", "2D", "freq", "shorter than a day, 1D or B where a calendar"),
        # recorded to 2026 or somewhat later, certainly not beyond what we may ask for
        (
            "XSHG",
            f"{module.LAST_YEAR - module.YEARS_AHEAD}-03-07",
            "1D",
            "calendar",
            "one that reaches over the horizon: XSHG ends on",
        ),
        ("XTKS", "1980-03-07", "1D", "calendar", "one that reaches back to 1980: XTKS begins in"),
        ("XNYS", "1969-12-31", "1D", "calendar", "end in 1969: calendars are known for those that"),
        ("XNYS", "2200-01-01", "1D", "calendar", "end in 2200: calendars are known for those that"),
    ],
)
async def test_what_is_refused(
    code: str, text: str, freq: str, field: str, constraint: str
) -> None:
    with pytest.raises(InvalidFields) as caught:
        await following(code, [text], freq, 5)
    (violation,) = caught.value.violations
    assert violation.field == field
    assert constraint in violation.constraint


HOURS = ("09:30", "10:00", "11:00", "12:00", "13:00", "14:00", "15:00")


@pytest.mark.parametrize(
    ("code", "texts", "freq", "expected"),
    [
        # hour bars on the clock, of an exchange that opens at 9:30: the first is labelled with the
        # opening, with the full hour before it, or left out
        (
            "XNYS",
            day("2025-03-06", *HOURS) + day("2025-03-07", *HOURS[:6]),
            "1h",
            ["2025-03-07T15:00", "2025-03-10T09:30", "2025-03-10T10:00"],
        ),
        (
            "XNYS",
            day("2025-03-06", "09:00", *HOURS[1:]) + day("2025-03-07", "09:00", *HOURS[1:]),
            "1h",
            ["2025-03-10T09:00", "2025-03-10T10:00"],
        ),
        (
            "XNYS",
            day("2025-03-06", *HOURS[1:]) + day("2025-03-07", *HOURS[1:]),
            "1h",
            ["2025-03-10T10:00", "2025-03-10T11:00"],
        ),
        ("XNYS", day("2025-03-06", *HOURS[1:6]), "1h", ["2025-03-06T15:00", "2025-03-07T10:00"]),
        # a half day on the clock
        (
            "XNYS",
            day("2024-12-23", *HOURS) + day("2024-12-24", *HOURS[:3]),
            "1h",
            ["2024-12-24T12:00", "2024-12-26T09:30", "2024-12-26T10:00"],
        ),
        # labelled by their end, on the clock
        (
            "XNYS",
            day("2025-03-06", *HOURS[1:], "16:00") + day("2025-03-07", *HOURS[1:]),
            "1h",
            ["2025-03-07T16:00", "2025-03-10T10:00"],
        ),
        (
            "XBOM",
            day("2025-03-06", "10:00", "11:00", "12:00", "13:00", "14:00", "15:00", "15:30"),
            "1h",
            ["2025-03-07T10:00", "2025-03-07T11:00"],
        ),
        # the last, short bar of a day is left out
        (
            "XNYS",
            every(60, "2025-03-06", "09:30", "14:30") + every(60, "2025-03-07", "09:30", "14:30"),
            "1h",
            ["2025-03-10T09:30", "2025-03-10T10:30"],
        ),
        # on the clock of UTC, in which the history is written
        (
            "XNYS",
            ["2025-03-06T16:00Z", "2025-03-06T20:00Z", "2025-03-07T16:00Z"],
            "4h",
            ["2025-03-07T20:00Z", "2025-03-10T16:00Z", "2025-03-11T16:00Z"],
        ),
        # bars that span the lunch break, labelled by their end
        (
            "XHKG",
            [
                *day("2025-03-05", "10:30", "11:30", "13:30", "14:30", "15:30", "16:00"),
                *day("2025-03-06", "10:30", "11:30"),
            ],
            "1h",
            ["2025-03-06T13:30", "2025-03-06T14:30", "2025-03-06T15:30", "2025-03-06T16:00"],
        ),
        (
            "XSHG",
            day("2024-06-13", "15:00") + day("2024-06-14", "15:00"),
            "4h",
            ["2024-06-17T15:00"],
        ),
        # round the clock from 2:00
        ("24/7", ["2025-03-08T18:00Z", "2025-03-08T22:00Z"], "4h", ["2025-03-09T02:00Z"]),
        ("24/7", ["2025-03-08T18:00Z", "2025-03-09T01:00Z"], "7h", ["2025-03-09T08:00Z"]),
        # five minutes after each opening
        ("XNYS", every(15, "2025-03-06", "09:35", "15:35"), "15min", ["2025-03-06T15:50"]),
    ],
)
async def test_bars_go_on_in_the_phase_of_the_history(
    code: str, texts: list[str], freq: str, expected: list[str]
) -> None:
    assert await following(code, texts, freq, len(expected)) == expected


MORNING = every(5, "2024-06-14", "09:40", "11:25")


@pytest.mark.parametrize(
    ("label", "texts", "code", "freq", "expected"),
    [
        (None, MORNING, "XSHG", "5min", ["2024-06-14T13:00", "2024-06-14T13:05"]),
        ("open", MORNING, "XSHG", "5min", ["2024-06-14T13:00", "2024-06-14T13:05"]),
        ("close", MORNING, "XSHG", "5min", ["2024-06-14T11:30", "2024-06-14T13:05"]),
        # an opening auction at 9:30 does not speak against closes, where no closing was reached
        ("close", ["2024-06-14T09:30", *MORNING], "XSHG", "5min", ["2024-06-14T11:30"]),
        (None, ["2025-03-06T15:00"], "XNYS", "1h", ["2025-03-07T09:30"]),
        ("close", ["2025-03-06T15:00"], "XNYS", "1h", ["2025-03-06T16:00", "2025-03-07T10:00"]),
        ("close", ["2025-03-06T15:30"], "XNYS", "1h", ["2025-03-06T16:00", "2025-03-07T10:30"]),
        ("open", ["2025-03-06T15:30"], "XNYS", "1h", ["2025-03-07T09:30"]),
        # days: midnight after the day is the end of its bar
        ("close", ["2025-03-08T00:00"], "XNYS", "1D", ["2025-03-11T00:00", "2025-03-12T00:00"]),
        ("close", ["2025-03-07"], "XNYS", "1D", ["2025-03-10", "2025-03-11"]),
        ("close", ["2025-03-07T16:00"], "XNYS", "1D", ["2025-03-10T16:00"]),
        ("close", ["2025-03-08T05:00Z"], "XNYS", "1D", ["2025-03-11T04:00Z"]),
    ],
)
async def test_the_label_says_which_end_of_its_bar_a_timestamp_names(
    label: str | None, texts: list[str], code: str, freq: str, expected: list[str]
) -> None:
    assert await following(code, texts, freq, len(expected), label) == expected


@pytest.mark.parametrize(
    ("label", "clocks", "constraint"),
    [
        ("open", ("10:00", "16:00"), "close or absent: 2 of timestamps lie on closings of XNYS"),
        ("close", ("09:30", "15:30"), "open or absent: 2 of timestamps lie on openings of XNYS"),
    ],
)
async def test_a_label_that_the_history_contradicts_is_refused(
    label: str, clocks: tuple[str, str], constraint: str
) -> None:
    texts = every(30, "2025-03-05", *clocks) + every(30, "2025-03-06", *clocks)
    with pytest.raises(InvalidFields) as caught:
        await following("XNYS", texts, "30min", 2, label)
    (violation,) = caught.value.violations
    assert violation.field == "bar_label"
    assert constraint in violation.constraint


@pytest.mark.parametrize(
    ("texts", "freq"),
    [
        (every(15, "2025-03-06", "10:00", "13:00"), "1h"),
        (day("2025-03-06", "10:00", "10:07", "10:17", "10:31", "10:40"), "5min"),
    ],
)
async def test_timestamps_on_no_bars_of_the_step_are_refused(texts: list[str], freq: str) -> None:
    with pytest.raises(InvalidFields, match="most of them lie on no bars of") as caught:
        await following("XNYS", texts, freq, 2)
    assert caught.value.violations[0].field == "freq"


async def test_a_local_time_that_the_exchange_skips_is_refused() -> None:
    texts = every(30, "2025-03-09", "01:00", "03:00")
    with pytest.raises(InvalidFields, match=r"timestamps\[2\] must be a local time of .*offsets"):
        await following("XNYS", texts, "30min", 2)


@pytest.mark.parametrize(
    ("code", "texts", "freq", "expected"),
    [
        # over the change of 9 March 2025, and back on 2 November
        (
            "XNYS",
            every(15, "2025-03-07", "09:30", "15:30", "-05:00"),
            "15min",
            ["2025-03-07T15:45-05:00", "2025-03-10T09:30-04:00", "2025-03-10T09:45-04:00"],
        ),
        ("XNYS", ["2025-10-31 15:30-0400"], "30min", ["2025-11-03 09:30-0500"]),
        ("XNYS", ["2025-03-07T00:00-05:00"], "1D", ["2025-03-10T00:00-04:00"]),
        ("XLON", ["2025-03-28T16:00+00:00"], "30min", ["2025-03-31T08:00+01:00"]),
        # UTC has no such change, nor has another offset
        ("XLON", ["2025-03-28T16:00Z"], "30min", ["2025-03-31T07:00Z"]),
        ("XNYS", ["2025-03-07T20:30Z"], "30min", ["2025-03-10T13:30Z"]),
        ("XNYS", ["2025-03-07T21:30+01:00"], "30min", ["2025-03-10T14:30+01:00"]),
        # a history that went over a change itself
        (
            "XNYS",
            ["2025-03-07T15:30-05:00", "2025-03-10T15:30-04:00"],
            "30min",
            ["2025-03-11T09:30-04:00"],
        ),
    ],
)
async def test_the_future_has_the_offset_of_the_exchange_where_the_history_has(
    code: str, texts: list[str], freq: str, expected: list[str]
) -> None:
    assert await following(code, texts, freq, len(expected)) == expected


async def test_gaps_are_those_that_the_calendar_does_not_explain() -> None:
    clocks = ("09:30", "15:45")
    whole = [*every(15, "2024-12-23", *clocks), *every(15, "2024-12-24", "09:30", "12:45")]
    whole += every(15, "2024-12-26", *clocks)
    assert (await continued("XNYS", whole, "15min", 1)).gaps is None
    gaps = (await continued("XNYS", whole[:20] + whole[25:], "15min", 1)).gaps
    assert gaps is not None
    assert (gaps.count, gaps.missing, gaps.after) == (1, 5, 19)
    assert gaps.longest == timedelta(minutes=90)
    days = ["2025-01-17", "2025-01-21", "2025-01-22", "2025-01-24"]
    gaps = (await continued("XNYS", days, "1D", 1)).gaps
    assert gaps is not None
    assert (gaps.count, gaps.missing, gaps.after) == (1, 1, 2)


async def test_timestamps_outside_the_sessions_are_counted() -> None:
    extended = every(30, "2025-03-06", "04:00", "19:30")
    continuation = await continued("XNYS", extended, "30min", 2)
    assert continuation.timestamps.texts == ["2025-03-07T09:30", "2025-03-07T10:00"]
    assert continuation.outside == len(extended) - 13
    assert continuation.gaps is None


async def test_full_steps_on_the_clock_that_span_two_sessions_are_not_chosen() -> None:
    """12 hours span the short break after the early closing of 19 January 2015."""
    evenings = ["2015-01-12T12:00Z", "2015-01-13T00:00Z", "2015-01-13T12:00Z"]
    future = await following("CMES", evenings, "12h", 40)
    parse_timestamps(future, "prediction_timestamps")  # ascends


@pytest.fixture(scope="module")
def sessions() -> dict[str, Sessions]:
    built = {code: build_sessions(code) for code in CODES}
    return {code: one for code, one in built.items() if one is not None}


CODES = ("XNYS", "XSHG", "XHKG", "CMES", "24/7", "24/5", "XLON", "XBOM")
STEPS = ("1min", "5min", "15min", "30min", "1h", "2h", "4h", "12h", "1D")
ZONES = st.sampled_from(["", "Z", "+00:00", "-05:00", "+08:00", "+0530"])


@settings(deadline=None)
@given(
    code=st.sampled_from(CODES),
    freq=st.sampled_from(STEPS),
    label=st.sampled_from([None, *BarLabel]),
    zone=ZONES,
    start=st.datetimes(datetime(2015, 1, 1), datetime(2024, 6, 1)),
    phase=st.sampled_from([0, 0, 30]),
    parts=st.tuples(st.integers(1, 60), st.integers(1, 200), st.integers(1, 200)),
)
def test_to_go_on_twice_is_to_go_on_once(
    sessions: dict[str, Sessions],
    code: str,
    freq: str,
    label: BarLabel | None,
    zone: str,
    start: datetime,
    phase: int,
    parts: tuple[int, int, int],
) -> None:
    """By k bars and then by m bars, as by k + m, from any start; neither makes a gap."""
    step = parse_frequency(freq)
    first = start.replace(minute=phase, second=0, microsecond=0)

    def go_on(texts: list[str], horizon: int) -> Continuation:
        history = parse_timestamps(texts, "timestamps")
        return sessions[code].following(history, horizon, step, label)

    def next_texts(texts: list[str], horizon: int) -> list[str]:
        return list(go_on(texts, horizon).timestamps.texts)

    try:
        history = next_texts([f"{first:%Y-%m-%dT%H:%M}{zone}"], parts[0])
        once = next_texts(history, parts[1] + parts[2])
    except InvalidFields as refused:
        # A step of sessions and a label that their edges contradict, or an hour that is skipped.
        assume(refused.violations[0].field not in ("bar_label", "timestamps"))
        raise
    twice = next_texts(history, parts[1])
    twice += next_texts(history + twice, parts[2])
    assert twice == once
    whole = parse_timestamps(history + once, "timestamps")  # ascends
    assert go_on(list(whole.texts), 1).gaps == go_on(history, 1).gaps


def test_all_schemes_go_on_twice_as_once(sessions: dict[str, Sessions]) -> None:
    """Histories of every scheme of bars are recognised, whatever their start in the day."""
    from kronos_api.timeseries.bars import Anchor, Bars, Hours, schemes

    for code, length in itertools.product(("XNYS", "XHKG", "XBOM"), (15, 30, 60, 120)):
        exchange = sessions[code]
        at = int(exchange.segments.opens.searchsorted(1_740_000_000_000_000))
        for label, offset in itertools.product(BarLabel, (0, 3)):
            for scheme in schemes(label, [0], pauses=True):
                hours = exchange.hours if scheme.anchor is Anchor.SESSION else exchange.segments
                cut: Any = [getattr(hours, name) for name in Hours.__dataclass_fields__]
                made = Bars(Hours(*(each[at // 2 :] for each in cut)), length * 60_000_000, scheme)
                if not made._separate():
                    continue
                labels = made.following(1_740_000_000_000_000, 120)[offset:]
                history = exchange._written(parse_timestamps(["2025-01-01T00:00"], "x"), labels)
                seen = parse_timestamps(history.texts[:80], "timestamps")
                step = parse_frequency(f"{length}min")
                future = exchange.following(seen, 40 - offset, step, None)
                assert future.timestamps.texts == history.texts[80:], (code, length, scheme)


@pytest.mark.parametrize("last", ["2025-10-31T18:00Z", "2025-11-06T15:00Z"])
async def test_bars_written_in_utc_begin_by_the_clock_of_the_exchange(last: str) -> None:
    """Two-hour bars from 10:00 in New York, before and after the clock is put back."""
    days = pd.bdate_range("2025-10-20", last[:10])
    local = [
        f"{day:%Y-%m-%d} {clock}" for day in days for clock in ("09:30", "10:00", "12:00", "14:00")
    ]
    written = pd.DatetimeIndex(local).tz_localize("America/New_York").tz_convert("UTC")
    texts = [f"{at:%Y-%m-%dT%H:%M}Z" for at in written if at <= pd.Timestamp(last)]
    history = parse_timestamps(texts, "timestamps")
    continued = await Calendars().following("XNYS", history, 6, parse_frequency("2h"))
    found = pd.DatetimeIndex(list(continued.timestamps.texts)).tz_convert("America/New_York")
    assert {f"{at:%H:%M}" for at in found} <= {"09:30", "10:00", "12:00", "14:00"}
    assert continued.gaps is None
