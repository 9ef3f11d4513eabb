"""Stamps in the sessions of exchanges: holidays, half days, lunch breaks, both kinds of labels."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from kronos_api.stamps import Calendars, Refusal, parse_frequency, parse_stamps
from kronos_api.stamps import calendars as module


async def following(code: str, texts: list[str], freq: str, horizon: int) -> list[str]:
    history = parse_stamps(texts, "timestamps")
    return list((await CALENDARS.following(code, history, horizon, parse_frequency(freq))).texts)


CALENDARS = Calendars()


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
            ["2025-03-07T15:45:00-05:00", "2025-03-10T08:30:00-05:00"],
        ),
        ("NYSE", ["2025-03-07T20:00:00Z"], "1h", ["2025-03-07T20:30:00Z", "2025-03-10T13:30:00Z"]),
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
        ("XNYS", ["2025-03-07T16:00:00-05:00"], "1D", ["2025-03-10T16:00:00-05:00"]),
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
async def test_what_follows(code: str, texts: list[str], freq: str, expected: list[str]) -> None:
    assert await following(code, texts, freq, len(expected)) == expected


@pytest.mark.parametrize("freq", ["1D", "1s", "5min", "12h"])
async def test_the_longest_horizon(freq: str) -> None:
    texts = await following("XNYS", ["2025-12-30T15:00:00"], freq, 512)
    assert len(set(texts)) == 512
    parse_stamps(texts, "prediction_timestamps")  # ascends


@pytest.mark.parametrize(
    ("code", "text", "freq", "field", "constraint"),
    [
        ("XNYX", "2025-03-07", "1D", "calendar", "a known exchange, such as XNYS"),
        ("qqqqqqqq", "2025-03-07", "1D", "calendar", "the code of a known exchange"),
        ("XNYS", "2025-03-07", "MS", "freq", "shorter than a day, 1D or B where a calendar"),
        ("XNYS", "2025-03-07", "2D", "freq", "shorter than a day, 1D or B where a calendar"),
        # recorded to 2026 or somewhat later, certainly not to 2150
        ("XSHG", "2150-03-07", "1D", "calendar", "one that reaches over the horizon: XSHG ends on"),
        ("XTKS", "1950-03-07", "1D", "calendar", "one that reaches back to 1950"),
    ],
)
async def test_what_is_refused(
    code: str, text: str, freq: str, field: str, constraint: str
) -> None:
    with pytest.raises(Refusal) as caught:
        await following(code, [text], freq, 5)
    (breach,) = caught.value.breaches
    assert breach.field == field
    assert constraint in breach.constraint


async def test_a_calendar_that_cannot_be_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import exchange_calendars

    def broken(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(exchange_calendars, "get_calendar", broken)
    with pytest.raises(Refusal, match="one that can be built: XNYS cannot"):
        await Calendars().sessions("XNYS", 2025)


async def test_calendars_are_built_once_and_the_oldest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[tuple[str, int]] = []
    ready = await CALENDARS.sessions("XNYS", 2025)

    def build(code: str, year: int) -> module.Sessions:
        built.append((code, year))
        time.sleep(0.01)
        return ready

    monkeypatch.setattr(module, "build_sessions", build)
    monkeypatch.setattr(module, "CACHED", 2)
    calendars = Calendars()
    await asyncio.gather(*(calendars.sessions("XNYS", 2025) for _ in range(5)))
    await calendars.sessions("xnys", 2025)
    assert built == [("XNYS", 2025)]
    for year in (2024, 2025, 2026, 2025, 2024):
        await calendars.sessions("XNYS", year)
    assert [year for _, year in built] == [2025, 2024, 2026, 2024]


async def test_building_leaves_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends only after the loop has had turns meanwhile."""
    turned = threading.Event()
    inner = module.build_sessions

    def build(code: str, year: int) -> module.Sessions:
        assert turned.wait(30), "the loop stood still"
        return inner(code, year)

    monkeypatch.setattr(module, "build_sessions", build)
    building = asyncio.create_task(Calendars().sessions("XLON", 2020))
    for _ in range(3):
        await asyncio.sleep(0.005)
    turned.set()
    assert (await building).code == "XLON"
