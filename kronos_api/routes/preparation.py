"""From parsed series to what the engine is asked for, by way of their future timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kronos_api.engine.request import ForecastRequest
from kronos_api.off_loop import off_loop
from kronos_api.schemas.parsing import ParsedSeries, numbered
from kronos_api.timeseries import Calendars, Continuation, find_gaps
from kronos_api.violations import InvalidFields

LARGE_SERIES: Final = 2_560
"""Requests of more candles and future timestamps have these made in threads: so many take up to
15 ms."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """Requests of the engine; normalised candles are clipped to ±clip."""

    calendars: Calendars
    clip: float

    async def of(
        self, series: Sequence[ParsedSeries]
    ) -> tuple[list[Continuation], list[ForecastRequest]]:
        """Future timestamps of each series, and what the engine is asked for.

        Raises:
            InvalidFields: the timestamps cannot be continued.
        """
        large = sum(len(one.history) + one.horizon for one in series) > LARGE_SERIES
        futures = await self._futures(series, large)
        return futures, await off_loop(large, _requests, series, futures, self.clip)

    async def _futures(self, series: Sequence[ParsedSeries], large: bool) -> list[Continuation]:
        """Future timestamps of each series, as given or continued."""
        futures = []
        for one in series:
            try:
                futures.append(await self._future(one, large))
            except InvalidFields as error:
                raise numbered(error, one.item) from None
        return futures

    async def _future(self, one: ParsedSeries, large: bool) -> Continuation:
        if one.freq is None or one.calendar is None:
            return await off_loop(large, _continued, one)
        return await self.calendars.following(
            one.calendar, one.history, one.horizon, one.freq, one.bar_label
        )


def _continued(one: ParsedSeries) -> Continuation:
    """The future timestamps of a series that keeps to no calendar."""
    future = one.future
    if future is None:
        assert one.freq is not None
        future = one.freq.following(one.history, one.horizon)
    return Continuation(future, find_gaps(one.history))


def _requests(
    series: Sequence[ParsedSeries], futures: Sequence[Continuation], clip: float
) -> list[ForecastRequest]:
    return [
        ForecastRequest.following(
            one.candles,
            one.history,
            future.timestamps,
            params=one.params,
            clip=clip,
            quantile_levels=one.quantile_levels,
            return_samples=one.return_samples,
            summary=one.summary,
            levels=one.levels,
            repair=one.repair,
        )
        for one, future in zip(series, futures, strict=True)
    ]
