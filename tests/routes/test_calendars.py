"""The list of calendars, over HTTP."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from kronos_api.schemas.calendars import CalendarList
from tests.web import SINGLE, body, serving

PATH = "/v1/calendars"


async def test_every_calendar_is_listed_with_what_a_caller_needs_to_choose() -> None:
    async with serving() as client:
        response = await client.get(PATH)
        assert response.status_code == 200
        listed = CalendarList.model_validate_json(response.content)
    by_code = {one.code: one for one in listed.calendars}
    assert list(by_code) == sorted(by_code)
    assert {"XNYS", "XSHG", "XBOM", "24/7", "24/5"} <= set(by_code)
    assert all(ZoneInfo(one.time_zone).key for one in listed.calendars)
    hours = by_code["XHKG"].hours
    assert (hours.open, hours.break_start, hours.break_end, hours.close) == (
        *("09:30", "12:00"),
        *("13:00", "16:00"),
    )
    assert by_code["24/7"].hours.close == "24:00"
    assert "CRYPTO" in by_code["24/7"].aliases
    assert by_code["CMES"].hours.opens_day_before
    assert listed.first_year < 2025 < listed.last_year


async def test_every_listed_name_is_taken() -> None:
    async with serving() as client:
        listed = (await client.get(PATH)).json()["calendars"]
        chosen = [one for one in listed if one["code"] in ("XNYS", "24/7", "24/5")]
        for name in [name for one in chosen for name in (one["code"], *one["aliases"])]:
            request = body(calendar=name, freq="1D")
            assert (await client.post(SINGLE, json=request)).status_code == 200, name


async def test_it_is_limited_with_other_routes_and_needs_a_listed_caller() -> None:
    async with serving(rate_limit_other_per_minute=1) as client:
        assert (await client.get(PATH)).status_code == 200
        response = await client.get("/v1/models")
        assert response.status_code == 429
        assert response.headers["Retry-After"]
    async with serving(security_enabled=True, container_whitelist="192.0.2.7") as client:
        response = await client.get(PATH)
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "CONTAINER_NOT_ALLOWED"
