"""The calendars that a request may name."""

from __future__ import annotations

import asyncio
from datetime import time
from typing import Any, Final

from fastapi import APIRouter, Request

from kronos_api.ratelimit.other_routes import Limited
from kronos_api.schemas.calendars import CalendarDescription, CalendarList, TradingHours
from kronos_api.schemas.examples import CALENDARS_ANSWER
from kronos_api.schemas.responses import LIMITED
from kronos_api.timeseries import Exchange, exchanges
from kronos_api.timeseries.calendars import FIRST_YEAR, LAST_YEAR, YEARS_AHEAD

ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": {"examples": CALENDARS_ANSWER}}},
    **LIMITED,
}


def router(limited: Limited) -> APIRouter:
    """`/v1/calendars`."""
    routes = APIRouter(tags=["predict"])

    @routes.get("/v1/calendars", name="calendars", responses=ANSWERS)
    @limited
    async def calendars(request: Request) -> CalendarList:
        """The codes that `calendar` takes, their aliases, time zones and regular hours."""
        del request
        # The first call imports a package of calendars, which takes a second.
        known = await asyncio.to_thread(exchanges)
        return CalendarList(
            calendars=[_described(one) for one in known],
            first_year=FIRST_YEAR,
            last_year=LAST_YEAR - YEARS_AHEAD,
        )

    return routes


def _described(exchange: Exchange) -> CalendarDescription:
    return CalendarDescription(
        code=exchange.code,
        aliases=list(exchange.aliases),
        name=exchange.name,
        country=exchange.country,
        time_zone=exchange.time_zone,
        hours=TradingHours(
            open=f"{exchange.open:%H:%M}",
            close="24:00" if exchange.closes_day_after else f"{exchange.close:%H:%M}",
            opens_day_before=exchange.opens_day_before,
            break_start=_clock(exchange.break_start),
            break_end=_clock(exchange.break_end),
        ),
    )


def _clock(at: time | None) -> str | None:
    return None if at is None else f"{at:%H:%M}"
