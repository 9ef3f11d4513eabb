"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from kronos_api_client import connection
from kronos_api_client.exchange import exchange
from kronos_api_client.forecast import Forecast, FrameT
from kronos_api_client.jobs import batch_job, join_frames, single_job
from kronos_api_client.messages import Answer, Exchange, Outcome, Request, Start
from kronos_api_client.options import Options
from kronos_api_client.service import (
    CALENDARS,
    HEALTH,
    MODELS,
    READY,
    Calendar,
    Models,
    Readiness,
    read_readiness,
)
from kronos_api_client.stream import CandleStream
from kronos_api_client.version import __version__


class KronosClient:
    """Forecasts from a Kronos API service, for frames of pandas and polars.

    It keeps its connections open: make one, share it among threads, and close it, or use it as a
    context manager. Requests that the service refuses for the moment (429, 503) and connections
    that could not be made are tried again; every other refusal raises the class of its code, a
    `KronosError`.

    Args:
        base_url: Where the service is, such as `http://localhost:8000`.
        timeout: Seconds for one response, or an `httpx.Timeout`.
        max_wait: Seconds in which a request is tried again; 0: never. A wait that would end later
            is not begun. `predict_many` counts them from the latest answer.
        headers: Sent with every request.
        transport: An httpx transport in place of the network.
        sleep: In place of `time.sleep`, for tests.
        now: In place of `time.monotonic`, for tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float | httpx.Timeout = connection.TIMEOUT,
        max_wait: float = connection.MAX_WAIT,
        headers: dict[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_wait = max_wait
        self._sleep = sleep
        self._now = now
        options = connection.options(base_url, timeout, headers, __version__, transport)
        self._http = httpx.Client(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(
        self,
        df: FrameT,
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        series_id: str | None = None,
        **options: Unpack[Options],
    ) -> FrameT:
        """Forecast one series; returns a frame of the same kind, one row a step.

        Args:
            df: Candles, oldest first: columns open, high, low, close and, if known, volume and
                amount; times as a DatetimeIndex or in a column such as `timestamps`. Time zones are
                kept.
            horizon: Steps to forecast.
            freq: Step as a pandas offset (`15min`, `1h`, `1D`, `B`); None: as in the history.
            calendar: Exchange code such as `XNYS`: the steps fall into its sessions only.
            series_id: Name of the series in the response and in the service's log.
            options: See `Options`.

        Raises:
            KronosError: The service refused the request or did not answer.
            ValueError: The frame has no candles or times, or values are missing.
        """
        return self.forecast(df, horizon, freq, calendar, series_id=series_id, **options).frame

    def forecast(
        self,
        df: FrameT,
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        series_id: str | None = None,
        **options: Unpack[Options],
    ) -> Forecast[FrameT]:
        """As `predict`; returns the frame with seed, warnings, versions and timings."""
        job = single_job(df, horizon, freq, calendar, series_id, options)
        return job.finish_one(self._run(job.requests))

    def stream(
        self,
        df: FrameT,
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        series_id: str | None = None,
        **options: Unpack[Options],
    ) -> CandleStream[FrameT]:
        """Forecast one series, candle by candle, as the service decodes them.

        for candle in (stream := kronos.stream(candles, horizon=24)):
            print(candle.timestamp, candle.close)
        forecast = stream.result

        Arguments are those of `forecast`, and so are the errors, which iterating raises. A refusal
        before the first event is tried again as others are; nothing is afterwards.
        """
        job = single_job(df, horizon, freq, calendar, series_id, options, stream=True)
        return CandleStream(job, lambda: self._run(job.requests)[0])

    def predict_many(
        self,
        df: FrameT,
        id_column: str = "series_id",
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        batch_size: int = 16,
        concurrency: int = 4,
        **options: Unpack[Options],
    ) -> FrameT:
        """Forecast the series of a long frame; returns a long frame in the order of the series.

        The series are sent in batches within the service's bounds, several at a time, and wait for
        the caller's quota where it is used up. All series are forecast, or an error is raised.

        Args:
            df: As in `predict`, with one more column; the rows of a series need not be adjacent.
            id_column: The column that names the series of a row.
            horizon: Steps to forecast of each series.
            freq: As in `predict`, for all series; None: as in the history of each.
            calendar: As in `predict`, for all series.
            batch_size: Series in one request; at most the service's KRONOS_MAX_BATCH_ITEMS (64).
            concurrency: Requests at a time.
            options: See `Options`.
        """
        forecasts = self.forecast_many(
            df,
            id_column,
            horizon,
            freq,
            calendar,
            batch_size=batch_size,
            concurrency=concurrency,
            **options,
        )
        joined: FrameT = join_frames(forecasts, df, id_column)
        return joined

    def forecast_many(
        self,
        df: FrameT,
        id_column: str = "series_id",
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        batch_size: int = 16,
        concurrency: int = 4,
        **options: Unpack[Options],
    ) -> dict[Any, Forecast[FrameT]]:
        """As `predict_many`; returns the forecasts by series id, in the order of the series."""
        job = batch_job(df, id_column, horizon, freq, calendar, options, batch_size, concurrency)
        return job.finish_many(self._run(job.requests, concurrency))

    def models(self) -> Models:
        """The checkpoints that the service has loaded."""
        models: Models = self._run([MODELS])[0].content
        return models

    def calendars(self) -> list[Calendar]:
        """The calendars that a forecast may name."""
        calendars: list[Calendar] = self._run([CALENDARS])[0].content["calendars"]
        return calendars

    def health(self) -> dict[str, Any]:
        """How the service's parts are, as `/v1/healthz/detailed` states it."""
        health: dict[str, Any] = self._run([HEALTH])[0].content
        return health

    def ready(self) -> Readiness:
        """Whether the service accepts forecasts."""
        return read_readiness(self._run([READY])[0])

    def _run(self, requests: Sequence[Request], concurrency: int = 1) -> list[Answer]:
        going = exchange(requests, max_wait=self.max_wait, now=self._now, concurrency=concurrency)
        if concurrency == 1:
            return self._one_by_one(going)
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="kronos-api-client")
        try:
            return self._side_by_side(going, pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _one_by_one(self, going: Exchange) -> list[Answer]:
        outcomes: list[Outcome] = []
        try:
            command = next(going)
            while True:
                if isinstance(command, Start):
                    outcomes.append(self._send(command.request))
                    command = going.send(())
                    continue
                if not outcomes:
                    self._sleep(command.seconds or 0)
                command = going.send(outcomes)
                outcomes = []
        except StopIteration as stop:
            answers: list[Answer] = stop.value
            return answers

    def _side_by_side(self, going: Exchange, pool: ThreadPoolExecutor) -> list[Answer]:
        running: set[Future[Outcome]] = set()
        try:
            command = next(going)
            while True:
                ended: set[Future[Outcome]] = set()
                if isinstance(command, Start):
                    running.add(pool.submit(self._send, command.request))
                elif running:
                    ended, running = wait(running, command.seconds, FIRST_COMPLETED)
                else:
                    self._sleep(command.seconds or 0)
                command = going.send([future.result() for future in ended])
        except StopIteration as stop:
            answers: list[Answer] = stop.value
            return answers

    def _send(self, request: Request) -> Outcome:
        try:
            sent = self._http.build_request(**connection.arguments(request))
            response = self._http.send(sent, stream=request.stream)
            if not connection.has_events(response):
                response.read()
            return Outcome(request, response)
        except httpx.RequestError as failure:
            return Outcome(request, failure)
