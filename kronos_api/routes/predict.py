"""Forecasts: one series, at once or as a stream, or several in a batch.

A request is parsed, its future timestamps are computed, the predictor forecasts, the response is
serialized; one deadline covers all of it. Long computations run in threads. If the caller
disconnects, its forecast is cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi import APIRouter, Request, Response

from kronos_api.engine.request import ForecastRequest
from kronos_api.errors import InternalError
from kronos_api.forecast import Forecast, ForecastSteps
from kronos_api.off_loop import off_loop
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.charge import charge_series
from kronos_api.routes.deadline import in_time, seconds_left
from kronos_api.routes.event_stream import Events, EventStream
from kronos_api.routes.observation import observe_results, observe_series, observed
from kronos_api.routes.presence import items_while_present, while_present
from kronos_api.schemas.candle_events import candle_events
from kronos_api.schemas.examples import (
    BATCH_ANSWER,
    BATCH_REQUESTS,
    SINGLE_ANSWER,
    SINGLE_REQUESTS,
    described,
    described_stream,
)
from kronos_api.schemas.parsing import ParsedSeries, RequestParser, numbered
from kronos_api.schemas.responses import FORECAST_ERRORS, PredictResponse
from kronos_api.schemas.serializing import SeriesForecast, serialize_many, serialize_one
from kronos_api.telemetry.phases import measured
from kronos_api.timeseries import Calendars, Continuation, find_gaps
from kronos_api.timeseries.features import time_features
from kronos_api.violations import InvalidFields

LARGE_BODY: Final = 128 * 1024
"""Bodies of more bytes are read in a thread, as those of batches are: this many take some 5 ms."""
LARGE_SERIES: Final = 2_560
"""Requests of more candles and future timestamps have these made in threads: so many take up to
15 ms."""
LARGE_RESPONSE: Final = 100_000
"""Responses of more numbers are written in a thread: this many take some 3 ms."""

HEARTBEAT: Final = 15.0
"""Seconds without an event after which a stream sends a heartbeat: proxies wait for 30 or more."""

log = structlog.stdlib.get_logger(__name__)


def router(
    predictor: AsyncPredictor, parser: RequestParser, *, timeout: float, clip: float
) -> APIRouter:
    """`/v1/predict/*`; a request takes at most `timeout` seconds.

    clip: normalised candles are clipped to ±clip.
    """
    routes = APIRouter(tags=["predict"], responses=FORECAST_ERRORS)
    forecasts = Forecasts(predictor, Calendars(), timeout, clip)

    @routes.post(
        "/v1/predict/single",
        response_model=PredictResponse,
        openapi_extra=described("PredictRequest", SINGLE_REQUESTS, SINGLE_ANSWER),
    )
    async def predict_single(request: Request) -> Response:
        """Forecast one series."""
        return await forecasts.answer("single", request, parser.single)

    @routes.post(
        "/v1/predict/batch",
        response_model=list[PredictResponse],
        openapi_extra=described("BatchRequest", BATCH_REQUESTS, BATCH_ANSWER),
    )
    async def predict_batch(request: Request) -> Response:
        """Forecast several series; the answers come in the order of the items."""
        return await forecasts.answer("batch", request, parser.batch)

    @routes.post(
        "/v1/predict/stream",
        response_class=Response,
        openapi_extra=described_stream(SINGLE_REQUESTS),
    )
    async def predict_stream(request: Request) -> Response:
        """Forecast one series, and send each candle as it is decoded.

        Server-sent events: a `candle` for each step, in order, then `done` with the response of
        `/v1/predict/single`; or `error`, with the envelope of errors, at any place.
        """
        return EventStream(lambda events: forecasts.stream(events, request, parser.single))

    return routes


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Answers requests for forecasts."""

    predictor: AsyncPredictor
    calendars: Calendars
    timeout: float
    clip: float

    async def answer(
        self, endpoint: str, request: Request, read: Callable[[bytes], list[ParsedSeries]]
    ) -> Response:
        """The response to `request`, whose body `read` takes apart; raises `KronosError`."""
        started = time.perf_counter()
        with observed(endpoint, started):
            async with in_time(self.timeout) as deadline:
                series = await self._read(endpoint, request, read)
                results = await while_present(request.receive, self._forecast(series, deadline))
                content = await self._content(endpoint, results, started)
            return Response(content, media_type="application/json")

    async def stream(
        self, events: Events, request: Request, read: Callable[[bytes], list[ParsedSeries]]
    ) -> None:
        """Send the events of the one series that `read` finds; raises as `answer` does.

        After the last candle there is no deadline but that of sending.
        """
        started = time.perf_counter()
        with observed("stream", started):
            async with in_time(self.timeout) as deadline:
                series = await self._read("stream", request, read)
                (future,), requests = await while_present(request.receive, self._prepare(series))
            items = self.predictor.stream(requests[0], timeout=seconds_left(deadline))
            async with aclosing(items_while_present(request.receive, items, HEARTBEAT)) as present:
                async for item in present:
                    match item:
                        case None:
                            await events.heartbeat()
                        case ForecastSteps():
                            _check_finite([item])
                            await events.event("candle", *candle_events(item, future.timestamps))
                        case Forecast():
                            results = [SeriesForecast(series[0], future, item)]
                            content = await self._content("stream", results, started)
                            await events.event("done", content)

    async def _read(
        self, endpoint: str, request: Request, read: Callable[[bytes], list[ParsedSeries]]
    ) -> list[ParsedSeries]:
        """The series of `request`, which are charged to the caller."""
        body = await request.body()
        large = endpoint == "batch" or len(body) > LARGE_BODY
        with measured("parse"):
            series = await off_loop(large, read, body)
        observe_series(endpoint, series)
        work = [one.params.sample_count * one.horizon for one in series]
        await charge_series(request.scope, work)
        return series

    async def _forecast(
        self, series: Sequence[ParsedSeries], deadline: float
    ) -> list[SeriesForecast]:
        futures, requests = await self._prepare(series)
        forecasts = await self.predictor.predict_many(requests, timeout=seconds_left(deadline))
        answers = zip(series, futures, forecasts, strict=True)
        return [SeriesForecast(*answer) for answer in answers]

    async def _prepare(
        self, series: Sequence[ParsedSeries]
    ) -> tuple[list[Continuation], list[ForecastRequest]]:
        """Future timestamps of each series, and what the engine is asked for."""
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

    async def _content(
        self, endpoint: str, results: Sequence[SeriesForecast], started: float
    ) -> bytes:
        info = self.predictor.info
        _check_finite(results)
        assert info is not None
        observe_results(results)
        large = sum(one.size for one in results) > LARGE_RESPONSE
        total_ms = (time.perf_counter() - started) * 1000
        with measured("write"):
            if endpoint == "batch":
                return await off_loop(large, serialize_many, results, info, total_ms)
            return await off_loop(large, serialize_one, results[0], info, total_ms)


def _check_finite(parts: Sequence[SeriesForecast | ForecastSteps]) -> None:
    if not all(one.finite for one in parts):
        log.error("forecast_not_finite")
        raise InternalError


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
        ForecastRequest(
            candles=one.candles,
            history_time_features=time_features(one.history.datetimes),
            future_time_features=time_features(future.timestamps.datetimes),
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
