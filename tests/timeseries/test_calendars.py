"""Each calendar is built once, and no request waits for the calendar of another."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kronos_api.timeseries import Calendars, parse_frequency, parse_timestamps
from kronos_api.timeseries import calendars as module
from kronos_api.timeseries.sessions import Sessions
from kronos_api.violations import InvalidFields

CALENDARS = Calendars()


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

    def build(code: str) -> Sessions:
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

    def build(code: str) -> Sessions:
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

    def build(_: str) -> Sessions:
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

    def build(code: str) -> Sessions | None:
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
