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

from kronos_api.errors import InternalError
from kronos_api.forecast import Forecast, ForecastSteps
from kronos_api.off_loop import off_loop
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.charge import charge_series
from kronos_api.routes.caching import CachedForecasts
from kronos_api.routes.deadline import in_time, seconds_left
from kronos_api.routes.event_stream import Events, EventStream
from kronos_api.routes.observation import observe_results, observe_series, observed
from kronos_api.routes.preparation import Preparation
from kronos_api.routes.presence import items_while_present, while_present
from kronos_api.schemas.candle_events import candle_events
from kronos_api.schemas.examples import (
    BATCH_ANSWER,
    BATCH_REQUESTS,
    KEYED,
    SINGLE_ANSWER,
    SINGLE_REQUESTS,
    described,
    described_stream,
)
from kronos_api.schemas.parsing import ParsedSeries, RequestParser
from kronos_api.schemas.responses import FORECAST_ERRORS, KEPT_ERRORS, PredictResponse
from kronos_api.schemas.serializing import SeriesForecast, serialize_many, serialize_one
from kronos_api.telemetry.phases import measured
from kronos_api.timeseries import Calendars

LARGE_BODY: Final = 128 * 1024
"""Bodies of more bytes are read in a thread, as those of batches are: this many take some 5 ms."""
LARGE_RESPONSE: Final = 100_000
"""Responses of more numbers are written in a thread: this many take some 3 ms."""

HEARTBEAT: Final = 15.0
"""Seconds without an event after which a stream sends a heartbeat: proxies wait for 30 or more."""

log = structlog.stdlib.get_logger(__name__)


def router(
    predictor: AsyncPredictor,
    parser: RequestParser,
    *,
    timeout: float,
    clip: float,
    cached: CachedForecasts | None = None,
) -> APIRouter:
    """`/v1/predict/*`; a request takes at most `timeout` seconds.

    clip: normalised candles are clipped to ±clip. cached: None computes every forecast.
    """
    routes = APIRouter(tags=["predict"], responses=FORECAST_ERRORS)
    forecasts = Forecasts(predictor, Preparation(Calendars(), clip), timeout, cached)

    @routes.post(
        "/v1/predict/single",
        response_model=PredictResponse,
        responses=KEPT_ERRORS,
        openapi_extra=described("PredictRequest", SINGLE_REQUESTS, SINGLE_ANSWER) | KEYED,
    )
    async def predict_single(request: Request) -> Response:
        """Forecast one series."""
        return await forecasts.answer("single", request, parser.single)

    @routes.post(
        "/v1/predict/batch",
        response_model=list[PredictResponse],
        responses=KEPT_ERRORS,
        openapi_extra=described("BatchRequest", BATCH_REQUESTS, BATCH_ANSWER) | KEYED,
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
    preparation: Preparation
    timeout: float
    cached: CachedForecasts | None

    async def answer(
        self, endpoint: str, request: Request, read: Callable[[bytes], list[ParsedSeries]]
    ) -> Response:
        """The response to `request`, whose body `read` takes apart; raises `KronosError`."""
        started = time.perf_counter()
        with observed(endpoint, started):
            async with in_time(self.timeout) as deadline:
                series = await self._read(endpoint, request, read)

                async def compute() -> bytes:
                    results = await while_present(request.receive, self._forecast(series, deadline))
                    return await self._content(endpoint, results, started)

                if self.cached is None:
                    return Response(await compute(), media_type="application/json")
                return await self.cached.respond(request, series, self.predictor.info, compute)

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
                (future,), requests = await while_present(
                    request.receive, self.preparation.of(series)
                )
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
        futures, requests = await self.preparation.of(series)
        forecasts = await self.predictor.predict_many(requests, timeout=seconds_left(deadline))
        answers = zip(series, futures, forecasts, strict=True)
        return [SeriesForecast(*answer) for answer in answers]

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
