"""From a frame to requests, and from their answers to forecasts: what both clients share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kronos_api_client.forecast import Forecast, read_forecast
from kronos_api_client.frames import FrameBackend, backend_of
from kronos_api_client.messages import LONGEST_KEY, Answer, Item, Request
from kronos_api_client.options import decode_steps, encode, parameters
from kronos_api_client.series import Series

SINGLE: Final = "/v1/predict/single"
BATCH: Final = "/v1/predict/batch"
STREAM: Final = "/v1/predict/stream"
MAX_BODY: Final = 10 * 2**20 - 1024
"""Bytes of a body that a service with the default settings accepts, less the brackets."""
MAX_STEPS: Final = 32_768
"""Sample paths times forecast steps, over a request, that such a service accepts."""


@dataclass(frozen=True, slots=True)
class Job:
    """A call for forecasts."""

    series: Sequence[Series]
    requests: Sequence[Request]
    backend: FrameBackend

    def finish(self, answers: Sequence[Answer]) -> list[Forecast[Any]]:
        """The forecasts in `answers`, one for each series."""
        return [
            read_forecast(answer, series, self.backend)
            for answer, series in zip(answers, self.series, strict=True)
        ]

    def finish_one(self, answers: Sequence[Answer]) -> Forecast[Any]:
        """The only forecast."""
        return self.finish(answers)[0]

    def finish_many(self, answers: Sequence[Answer]) -> dict[Any, Forecast[Any]]:
        """The forecasts by series id, in the order of the series."""
        return {forecast.series_id: forecast for forecast in self.finish(answers)}


def single_job(
    frame: object,
    horizon: int,
    freq: str | None,
    calendar: str | None,
    series_id: object,
    options: Mapping[str, Any],
    *,
    stream: bool = False,
) -> Job:
    """The job of one series; raises `TypeError` and `ValueError` for frames without candles."""
    backend = backend_of(frame)
    series = backend.read_one(frame, series_id)
    request = _parameters(backend, horizon, freq, calendar, options)
    item = Item(series_id, encode(series, request))
    path, key = STREAM if stream else SINGLE, _key(options)
    if stream and key is not None:
        raise TypeError(
            "stream has no idempotency_key: the service computes each stream. Use forecast"
        )
    return Job([series], [Request("POST", path, (item,), stream=stream, key=key)], backend)


def batch_job(
    frame: object,
    id_column: str,
    horizon: int,
    freq: str | None,
    calendar: str | None,
    options: Mapping[str, Any],
    batch_size: int,
    concurrency: int,
) -> Job:
    """The job of the many series of a long frame, in batches within the service's bounds."""
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, found {value}")
    backend = backend_of(frame)
    series = backend.read_many(frame, id_column)
    request = _parameters(backend, horizon, freq, calendar, options)
    items = [
        Item(one.series_id, encode(one, request, fallback_id=str(number)))
        for number, one in enumerate(series)
    ]
    most = min(batch_size, max(1, MAX_STEPS // max(1, decode_steps(request))))
    key = _key(options)
    return Job(series, [replace(one, key=key) for one in batches(items, most)], backend)


def join_frames(forecasts: Mapping[Any, Forecast[Any]], like: object, id_column: str) -> Any:
    """The frames of `forecasts` as one long frame."""
    frames = {series_id: forecast.frame for series_id, forecast in forecasts.items()}
    return backend_of(like).join(frames, id_column)


def batches(items: Sequence[Item], most: int, max_body: int = MAX_BODY) -> Iterator[Request]:
    """Requests for `items` in order, of at most `most` items and `max_body` bytes each."""
    first, size = 0, 0
    for number, item in enumerate(items):
        length = len(item.content) + 1
        if number > first and (number - first == most or size + length > max_body):
            yield Request("POST", BATCH, tuple(items[first:number]), batch=True, first=first)
            first, size = number, 0
        size += length
    if items:
        yield Request("POST", BATCH, tuple(items[first:]), batch=True, first=first)


def _key(options: Mapping[str, Any]) -> str | None:
    """The idempotency key of a call; raises `ValueError` for one that the service refuses."""
    key: str | None = options.get("idempotency_key")
    if key is not None and not re.fullmatch(rf"[!-~]{{1,{LONGEST_KEY}}}", key):
        raise ValueError(
            f"idempotency_key must be 1 to {LONGEST_KEY} visible ASCII characters, such as a random"
            f" UUID; found {key!a}"
        )
    return key


def _parameters(
    backend: FrameBackend,
    horizon: int,
    freq: str | None,
    calendar: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    request = parameters(horizon, freq, calendar, options)
    if "prediction_timestamps" in request:
        request["prediction_timestamps"] = backend.texts_of(request["prediction_timestamps"])
    return request
