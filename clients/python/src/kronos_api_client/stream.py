"""Forecasts whose candles arrive one by one, as the service decodes them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self

import httpx

from kronos_api_client.errors import KronosError, error_of_content
from kronos_api_client.exchange import connection_failed
from kronos_api_client.forecast import Forecast, FrameT
from kronos_api_client.jobs import Job
from kronos_api_client.messages import Answer
from kronos_api_client.series import FIELDS


@dataclass(frozen=True, slots=True)
class CandleEvent:
    """One step of a forecast, as soon as it is decoded: the mean over the sample paths.

    Attributes:
        step: Number of the step, counted from 0.
        timestamp: As the service writes it.
        quantiles: Level → the six fields, if levels were asked for.
    """

    step: int
    timestamp: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    amount: float
    quantiles: Mapping[float, Mapping[str, float]] = field(default_factory=dict)


class _Reader(Generic[FrameT]):
    """Reads the bytes of one stream."""

    def __init__(self, job: Job, answer: Answer) -> None:
        self._job = job
        self.response: httpx.Response = answer.content
        self._request_id = answer.request_id
        self._line = bytearray()
        self._event = ""
        self._data: list[bytes] = []
        self.forecast: Forecast[FrameT] | None = None

    def read(self, chunk: bytes) -> Iterator[CandleEvent]:
        """The candles that `chunk` completes, up to the forecast; raises the error it completes."""
        # Not `str.splitlines`: the text of an event can contain other separators, such as U+2028.
        for line in chunk.splitlines(keepends=True):
            self._line += line
            if not line.endswith(b"\n"):
                continue
            candle = self._complete(bytes(self._line.rstrip(b"\r\n")))
            self._line.clear()
            if candle:
                yield candle
            if self.forecast is not None:
                return

    def _complete(self, line: bytes) -> CandleEvent | None:
        """The candle of the event that `line` ends."""
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                self._event = value.decode(errors="replace")
            elif name == b"data":
                self._data.append(value)
            return None
        event, data = self._event, b"\n".join(self._data)
        self._event, self._data = "", []
        if not data:
            return None
        try:
            return self._dispatch(event, json.loads(data))
        except (LookupError, TypeError, ValueError) as error:
            raise KronosError(
                f"an event {event!r} is none of Kronos API: {type(error).__name__} {error}",
                code="UNEXPECTED_RESPONSE",
                status=200,
                request_id=self._request_id,
            ) from error

    def end(self) -> Forecast[FrameT]:
        """The forecast of a stream that has ended; raises `KronosError` if it has none."""
        if self.forecast is None:
            message = "The stream was cut off before its forecast"
            raise connection_failed(message, self._request_id)
        return self.forecast

    def _dispatch(self, event: str, content: Any) -> CandleEvent | None:
        if event == "error":
            raise error_of_content(content["error"], self._request_id)
        if event == "done":
            self.forecast = self._job.finish_one([Answer(content, self._request_id)])
        if event != "candle":
            return None
        values = {name: content[name] for name in ("step", "timestamp", *FIELDS)}
        quantiles = content.get("quantiles") or {}
        return CandleEvent(
            **values, quantiles={float(level): value for level, value in quantiles.items()}
        )


class _Stream(Generic[FrameT]):
    """What both streams have in common."""

    _result: Forecast[FrameT] | None = None

    @property
    def result(self) -> Forecast[FrameT]:
        """The whole forecast, once the stream has been read to its end."""
        if self._result is None:
            raise RuntimeError("the stream has no result yet: read it to its end first")
        return self._result


class CandleStream(_Stream[FrameT]):
    """The candles of one forecast; `result` is the whole forecast at their end.

    The request is sent when the first candle is asked for. Close a stream that is not read to its
    end, or use it as a context manager: the service then stops decoding.
    """

    def __init__(self, job: Job, open_response: Callable[[], Answer]) -> None:
        self._candles = self._read(job, open_response)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> CandleEvent:
        return next(self._candles)

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
        """Disconnect."""
        self._candles.close()

    def _read(self, job: Job, open_response: Callable[[], Answer]) -> Generator[CandleEvent]:
        reader: _Reader[FrameT] = _Reader(job, open_response())
        try:
            for chunk in reader.response.iter_bytes():
                yield from reader.read(chunk)
                if reader.forecast is not None:
                    break
        except httpx.RequestError as failure:
            raise connection_failed(failure) from failure
        finally:
            reader.response.close()
        self._result = reader.end()


class AsyncCandleStream(_Stream[FrameT]):
    """As `CandleStream`, for `async for` and `async with`."""

    def __init__(self, job: Job, open_response: Callable[[], Awaitable[Answer]]) -> None:
        self._candles = self._read(job, open_response)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CandleEvent:
        return await anext(self._candles)

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
        """Disconnect."""
        await self._candles.aclose()

    async def _read(
        self, job: Job, open_response: Callable[[], Awaitable[Answer]]
    ) -> AsyncGenerator[CandleEvent]:
        reader: _Reader[FrameT] = _Reader(job, await open_response())
        try:
            async for chunk in reader.response.aiter_bytes():
                for candle in reader.read(chunk):
                    yield candle
                if reader.forecast is not None:
                    break
        except httpx.RequestError as failure:
            raise connection_failed(failure) from failure
        finally:
            await reader.response.aclose()
        self._result = reader.end()
