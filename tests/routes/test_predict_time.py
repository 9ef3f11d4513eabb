"""Timestamps, calendars and their warnings, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web import BATCH, SINGLE, START, body, serving, stamps

MORNING = [f"2024-06-14 {at // 60:02}:{at % 60:02}:00" for at in range(580, 690, 5)]


def at(timestamps: list[str], **changes: Any) -> dict[str, Any]:
    return body(len(timestamps), timestamps=timestamps, **changes)


async def answer(request: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Future timestamps, and messages of warnings by code."""
    async with serving() as client:
        response = await client.post(SINGLE, json=request)
    assert response.status_code == 200, response.text
    whole = response.json()
    warnings = {one["code"]: one["message"] for one in whole["warnings"]}
    return [candle["timestamp"] for candle in whole["prediction"]], warnings


async def refusal(request: dict[str, Any], status: int = 400) -> dict[str, Any]:
    async with serving() as client:
        response = await client.post(SINGLE, json=request)
    assert response.status_code == status, response.text
    detail: dict[str, Any] = response.json()["error"]["details"][0]
    return detail


async def test_a_bar_label_decides_where_bars_go_on() -> None:
    asked = {"calendar": "XSHG", "horizon": 2}
    opened = at(MORNING, **asked, bar_label="open")
    closed = at(MORNING, **asked, bar_label="close")
    assert (await answer(at(MORNING, **asked)))[0] == ["2024-06-14 13:00:00", "2024-06-14 13:05:00"]
    async with serving() as client:
        response = await client.post(BATCH, json={"items": [opened, closed]})
    futures = [[one["timestamp"] for one in item["prediction"]] for item in response.json()]
    assert futures == [
        ["2024-06-14 13:00:00", "2024-06-14 13:05:00"],
        ["2024-06-14 11:30:00", "2024-06-14 13:05:00"],
    ]


async def test_a_bar_label_is_open_or_close() -> None:
    detail = await refusal(at(MORNING, calendar="XSHG", bar_label="end"))
    assert detail["field"] == "bar_label"
    assert detail["constraint"] == "'open' or 'close'"


async def test_a_bar_label_that_the_history_contradicts_names_the_item() -> None:
    closes = [f"2025-03-0{day}T{hour}:00" for day in (5, 6) for hour in range(10, 17)]
    item = at(closes, calendar="XNYS", freq="1h", bar_label="open")
    async with serving() as client:
        response = await client.post(BATCH, json={"items": [body(), item]})
    detail = response.json()["error"]["details"][0]
    assert (detail["item"], detail["field"]) == (1, "bar_label")
    assert "close or absent" in detail["constraint"]


async def test_the_offset_follows_the_exchange_over_a_change_of_the_clock() -> None:
    friday = stamps(26, START.replace(day=7, hour=9, minute=30), "-05:00")
    future, warnings = await answer(at(friday, calendar="XNYS", horizon=2))
    assert future == ["2025-03-10T09:30:00-04:00", "2025-03-10T09:45:00-04:00"]
    assert "HISTORY_GAPS" not in warnings


async def test_gaps_are_warned_of_with_number_and_longest() -> None:
    broken = stamps(80)[:20] + stamps(80)[25:50] + stamps(80)[52:]
    _, warnings = await answer(at(broken))
    message = warnings["HISTORY_GAPS"]
    assert "7 candles are missing in 2 gaps" in message
    assert "1:30:00, after timestamps[19]" in message
    after = stamps(82)[80:]
    _, warnings = await answer(at(broken, horizon=None, prediction_timestamps=after))
    assert "HISTORY_GAPS" in warnings
    _, warnings = await answer(at(stamps(80)))
    assert "HISTORY_GAPS" not in warnings


async def test_a_holiday_is_a_gap_only_without_a_calendar() -> None:
    days = [f"2025-01-{day:02}" for day in (6, 7, 8, 10, 13, 14, 15, 16, 17, 21, 22, 23)]
    _, warnings = await answer(at(days))
    assert "2 candles are missing in 2 gaps" in warnings["HISTORY_GAPS"]
    _, warnings = await answer(at(days, calendar="XNYS"))  # 9 and 20 January
    assert "HISTORY_GAPS" not in warnings


async def test_timestamps_outside_the_sessions_are_warned_of() -> None:
    early = stamps(60, START.replace(hour=4), "-05:00")
    future, warnings = await answer(at(early, calendar="XNYS"))
    assert future[0] == "2025-03-04T09:30:00-05:00"
    assert "34 of 60 timestamps lie outside the sessions of XNYS" in warnings["OUTSIDE_SESSIONS"]


@pytest.mark.parametrize(
    ("first", "future"),
    [
        ("20250303T090000Z", "20250303T091000Z"),
        ("20250303T0900", "20250303T0910"),
        ("2025-03-03 09:00", "2025-03-03 09:10"),
        ("2025-03-03T09:00+0800", "2025-03-03T09:10+0800"),
    ],
)
async def test_the_future_is_written_as_the_history(first: str, future: str) -> None:
    second = future.replace("0910", "0905").replace("09:10", "09:05")
    written, _ = await answer(at([first, second], freq="5min"))
    assert written[0] == future


async def test_epoch_numbers_are_answered_with_their_accepted_form() -> None:
    numbers = {"timestamps": [1748856600, 1748856900, 1748857200, 1748857500]}
    detail = await refusal(body(4) | numbers, 422)
    assert (detail["field"], detail["index"]) == ("timestamps", 0)
    assert "2025-06-02T09:30:00Z" in detail["constraint"]
    texts = {"timestamps": [str(number) for number in numbers["timestamps"]]}
    assert "2025-06-02T09:30:00Z" in (await refusal(body(4) | texts))["constraint"]


async def test_an_unknown_calendar_names_the_market_that_is_meant() -> None:
    detail = await refusal(body(calendar="Shanghai"))
    assert detail["constraint"].endswith(
        "did you mean XSHG (Shanghai and Shenzhen Stock Exchanges)?"
    )
