"""Forecasts: one series, or several in a batch.

A request is parsed, its future timestamps are computed, the predictor forecasts, the response is
serialized; one deadline covers all of it. Long computations run in threads. If the caller
disconnects, its forecast is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from kronos_api.engine.request import ForecastRequest
from kronos_api.errors import InternalError, PredictionTimeout
from kronos_api.off_loop import off_loop
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.charge import charge_series
from kronos_api.routes.observation import observe_results, observe_series, observed
from kronos_api.schemas.examples import (
    BATCH_ANSWER,
    BATCH_REQUESTS,
    SINGLE_ANSWER,
    SINGLE_REQUESTS,
    described,
)
from kronos_api.schemas.parsing import ParsedSeries, RequestParser, numbered
from kronos_api.schemas.responses import ErrorResponse, PredictResponse
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

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {
        "model": ErrorResponse,
        "description": "INVALID_INPUT, MALFORMED_JSON, MALFORMED_BODY, WORK_TOO_LARGE",
    },
    403: {
        "model": ErrorResponse,
        "description": "CONTAINER_NOT_ALLOWED, HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED",
    },
    408: {"model": ErrorResponse, "description": "REQUEST_TIMEOUT"},
    413: {"model": ErrorResponse, "description": "REQUEST_TOO_LARGE"},
    415: {"model": ErrorResponse, "description": "UNSUPPORTED_MEDIA_TYPE"},
    422: {"model": ErrorResponse, "description": "VALIDATION_ERROR"},
    429: {"model": ErrorResponse, "description": "RATE_LIMITED"},
    500: {"model": ErrorResponse, "description": "INTERNAL_ERROR"},
    503: {
        "model": ErrorResponse,
        "description": "MODEL_NOT_READY, QUEUE_FULL, SHUTTING_DOWN, CALLER_UNKNOWN",
    },
    504: {"model": ErrorResponse, "description": "PREDICTION_TIMEOUT"},
}

Result = TypeVar("Result")
log = structlog.stdlib.get_logger(__name__)


def router(
    predictor: AsyncPredictor, parser: RequestParser, *, timeout: float, clip: float
) -> APIRouter:
    """`/v1/predict/*`; a request takes at most `timeout` seconds.

    clip: normalised candles are clipped to ±clip.
    """
    routes = APIRouter(tags=["predict"], responses=ERRORS)
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
            deadline = asyncio.get_running_loop().time() + self.timeout
            try:
                async with asyncio.timeout_at(deadline):
                    body = await request.body()
                    large = endpoint == "batch" or len(body) > LARGE_BODY
                    with measured("parse"):
                        series = await off_loop(large, read, body)
                    observe_series(endpoint, series)
                    work = [one.params.sample_count * one.horizon for one in series]
                    await charge_series(request.scope, work)
                    results = await _while_present(
                        request.receive, self._forecast(series, deadline)
                    )
                    return await self._response(endpoint, results, started)
            except TimeoutError:
                raise PredictionTimeout(
                    f"The request exceeded KRONOS_REQUEST_TIMEOUT ({self.timeout:g} s) and was"
                    " cancelled. Ask for fewer series, sample paths or steps, or raise"
                    " KRONOS_REQUEST_TIMEOUT."
                ) from None

    async def _forecast(
        self, series: Sequence[ParsedSeries], deadline: float
    ) -> list[SeriesForecast]:
        large = sum(len(one.history) + one.horizon for one in series) > LARGE_SERIES
        futures = await self._futures(series, large)
        requests = await off_loop(large, _requests, series, futures, self.clip)
        left = deadline - asyncio.get_running_loop().time()
        forecasts = await self.predictor.predict_many(requests, timeout=max(left, 0.001))
        answers = zip(series, futures, forecasts, strict=True)
        return [SeriesForecast(*answer) for answer in answers]

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

    async def _response(
        self, endpoint: str, results: Sequence[SeriesForecast], started: float
    ) -> Response:
        info = self.predictor.info
        if info is None or not all(one.finite for one in results):
            log.error("forecast_not_finite")
            raise InternalError
        observe_results(results)
        large = sum(one.size for one in results) > LARGE_RESPONSE
        total_ms = (time.perf_counter() - started) * 1000
        with measured("write"):
            if endpoint == "single":
                content = await off_loop(large, serialize_one, results[0], info, total_ms)
            else:
                content = await off_loop(large, serialize_many, results, info, total_ms)
        return Response(content, media_type="application/json")


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


async def _while_present(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the caller disconnects first.

    The body must have been read.

    Raises:
        ClientDisconnect: the caller disconnected.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
