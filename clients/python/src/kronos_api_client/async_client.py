"""The asynchronous client: the methods of `KronosClient`, to be awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from kronos_api_client import connection
from kronos_api_client.exchange import exchange
from kronos_api_client.forecast import Forecast, FrameT
from kronos_api_client.jobs import batch_job, join_frames, single_job
from kronos_api_client.messages import Answer, Outcome, Request, Start
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
from kronos_api_client.stream import AsyncCandleStream
from kronos_api_client.version import __version__


class AsyncKronosClient:
    """As `KronosClient`; all methods but `stream` are coroutines.

    It keeps its connections open: make one, share it among tasks of one event loop, and close it by
    `aclose`, or use it as an asynchronous context manager. `sleep` stands for `asyncio.sleep`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float | httpx.Timeout = connection.TIMEOUT,
        max_wait: float = connection.MAX_WAIT,
        headers: dict[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_wait = max_wait
        self._sleep = sleep
        self._now = now
        options = connection.options(base_url, timeout, headers, __version__, transport)
        self._http = httpx.AsyncClient(**options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(
        self,
        df: FrameT,
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        series_id: str | None = None,
        **options: Unpack[Options],
    ) -> FrameT:
        """As `KronosClient.predict`."""
        whole = await self.forecast(df, horizon, freq, calendar, series_id=series_id, **options)
        return whole.frame

    async def forecast(
        self,
        df: FrameT,
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        series_id: str | None = None,
        **options: Unpack[Options],
    ) -> Forecast[FrameT]:
        """As `KronosClient.forecast`."""
        job = single_job(df, horizon, freq, calendar, series_id, options)
        return job.finish_one(await self._run(job.requests))

    def stream(
        self,
        df: FrameT,
        horizon: int = 24,
        freq: str | None = None,
        calendar: str | None = None,
        *,
        series_id: str | None = None,
        **options: Unpack[Options],
    ) -> AsyncCandleStream[FrameT]:
        """As `KronosClient.stream`; to be read by `async for`, not awaited."""
        job = single_job(df, horizon, freq, calendar, series_id, options, stream=True)

        async def open_response() -> Answer:
            return (await self._run(job.requests))[0]

        return AsyncCandleStream(job, open_response)

    async def predict_many(
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
        """As `KronosClient.predict_many`."""
        forecasts = await self.forecast_many(
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

    async def forecast_many(
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
        """As `KronosClient.forecast_many`."""
        job = batch_job(df, id_column, horizon, freq, calendar, options, batch_size, concurrency)
        return job.finish_many(await self._run(job.requests, concurrency))

    async def models(self) -> Models:
        """The checkpoints that the service has loaded."""
        models: Models = (await self._run([MODELS]))[0].content
        return models

    async def calendars(self) -> list[Calendar]:
        """The calendars that a forecast may name."""
        calendars: list[Calendar] = (await self._run([CALENDARS]))[0].content["calendars"]
        return calendars

    async def health(self) -> dict[str, Any]:
        """How the service's parts are, as `/v1/healthz/detailed` states it."""
        health: dict[str, Any] = (await self._run([HEALTH]))[0].content
        return health

    async def ready(self) -> Readiness:
        """Whether the service accepts forecasts."""
        return read_readiness((await self._run([READY]))[0])

    async def _run(self, requests: Sequence[Request], concurrency: int = 1) -> list[Answer]:
        going = exchange(requests, max_wait=self.max_wait, now=self._now, concurrency=concurrency)
        running: set[asyncio.Task[Outcome]] = set()
        try:
            command = next(going)
            while True:
                ended: set[asyncio.Task[Outcome]] = set()
                if isinstance(command, Start):
                    running.add(asyncio.create_task(self._send(command.request)))
                elif running:
                    ended, running = await asyncio.wait(
                        running, timeout=command.seconds, return_when=asyncio.FIRST_COMPLETED
                    )
                else:
                    await self._sleep(command.seconds or 0)
                command = going.send([task.result() for task in ended])
        except StopIteration as stop:
            answers: list[Answer] = stop.value
            return answers
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _send(self, request: Request) -> Outcome:
        try:
            sent = self._http.build_request(**connection.arguments(request))
            response = await self._http.send(sent, stream=request.stream)
            if not connection.has_events(response):
                await response.aread()
            return Outcome(request, response)
        except httpx.RequestError as failure:
            return Outcome(request, failure)
