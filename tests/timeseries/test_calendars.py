"""Timestamps in the sessions of exchanges: holidays, half days, lunch breaks, both labels."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kronos_api.timeseries import Calendars, parse_frequency, parse_timestamps
from kronos_api.timeseries import calendars as module
from kronos_api.violations import InvalidFields


async def following(code: str, texts: list[str], freq: str, horizon: int) -> list[str]:
    history = parse_timestamps(texts, "timestamps")
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


async def test_a_calendar_that_cannot_be_built_is_refused_and_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import exchange_calendars

    tried = []

    def broken(code: str, **_: object) -> None:
        tried.append(code)
        raise NotImplementedError

    monkeypatch.setattr(exchange_calendars, "get_calendar", broken)
    calendars = Calendars()
    for _ in range(2):
        with pytest.raises(InvalidFields, match="one that can be built: XNYS cannot"):
            await calendars.sessions("XNYS")
    assert tried == ["XNYS"]


async def test_a_calendar_is_built_once_for_all_years_and_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[str] = []
    ready = await CALENDARS.sessions("XNYS")

    def build(code: str) -> module.Sessions:
        built.append(code)
        return ready

    monkeypatch.setattr(module, "build_sessions", build)
    calendars = Calendars()
    freq = parse_frequency("1D")
    for code, years in {"XNYS": range(1980, 2016), "nyse": range(2016, 2020)}.items():
        histories = [parse_timestamps([f"{year}-03-06"], "timestamps") for year in years]
        await asyncio.gather(*(calendars.following(code, one, 1, freq) for one in histories))
    assert built == ["XNYS"]


async def test_a_calendar_does_not_wait_for_another_that_is_being_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many requests wait for the other one."""
    release = threading.Event()
    ready = await CALENDARS.sessions("XNYS")

    def build(code: str) -> module.Sessions:
        assert code == "XNYS" or release.wait(60), "XNYS waited for XKRX"
        return ready

    monkeypatch.setattr(module, "build_sessions", build)
    calendars = Calendars()
    waiting = [asyncio.create_task(calendars.sessions("XKRX")) for _ in range(36)]
    try:
        assert await calendars.sessions("XNYS") is ready
        assert not any(task.done() for task in waiting)
    finally:
        release.set()
    await asyncio.gather(*waiting)


async def test_a_caller_that_leaves_cancels_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    release, started = threading.Event(), threading.Event()
    ready = await CALENDARS.sessions("XNYS")

    def build(_: str) -> module.Sessions:
        started.set()
        assert release.wait(60)
        return ready

    monkeypatch.setattr(module, "build_sessions", build)
    calendars = Calendars()
    leaving, staying = (asyncio.create_task(calendars.sessions("XNYS")) for _ in range(2))
    await asyncio.to_thread(started.wait)
    leaving.cancel()
    await asyncio.wait({leaving})
    release.set()
    assert await staying is ready


async def test_building_leaves_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends only after the loop has had turns meanwhile."""
    turned = threading.Event()
    inner = module.build_sessions

    def build(code: str) -> module.Sessions | None:
        assert turned.wait(30), "the loop stood still"
        return inner(code)

    monkeypatch.setattr(module, "build_sessions", build)
    building = asyncio.create_task(Calendars().sessions("XLON"))
    for _ in range(3):
        await asyncio.sleep(0.005)
    turned.set()
    assert (await building).code == "XLON"


def test_the_package_keeps_no_calendar() -> None:
    from exchange_calendars.calendar_utils import global_calendar_dispatcher

    assert module.build_sessions("XTKS") is not None
    assert "XTKS" not in global_calendar_dispatcher._factory_output_cache


@pytest.mark.parametrize(
    ("alias", "code"),
    [("crypto", "24/7"), ("Binance", "24/7"), ("FX", "24/5"), ("NSE", "XBOM"), ("XSHE", "XSHG")],
)
def test_names_that_traders_use(alias: str, code: str) -> None:
    assert module.canonical_code(alias) == code


def test_an_exchange_without_known_hours_names_one_of_the_same_days() -> None:
    with pytest.raises(InvalidFields, match=r"SHFE is not\. XSHG trades on the same days"):
        module.canonical_code("shfe")
