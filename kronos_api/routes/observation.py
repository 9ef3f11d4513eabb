"""Metrics of forecasts, and the fields of a forecast's line in the access log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from starlette.requests import ClientDisconnect

from kronos_api.errors import InternalError, KronosError, PredictionTimeout
from kronos_api.schemas.parsing import ParsedSeries
from kronos_api.schemas.serializing import SeriesForecast
from kronos_api.telemetry.metrics import metrics

GONE: Final = 499
"""Status that is counted for a client that disconnected."""


@contextmanager
def observed(endpoint: str, started: float) -> Iterator[None]:
    """Count the duration of a request and its status."""
    status = InternalError.status
    try:
        yield
        status = 200
    except KronosError as error:
        status = error.status
        if isinstance(error, PredictionTimeout):
            metrics.timeouts.labels(endpoint).inc()
        raise
    except (ClientDisconnect, asyncio.CancelledError):
        status = GONE
        raise
    finally:
        elapsed = time.perf_counter() - started
        metrics.prediction_latency.labels(endpoint, str(status)).observe(elapsed)


def observe_series(endpoint: str, series: Sequence[ParsedSeries]) -> None:
    """Fields of the request's log line; sums over the series of a batch."""
    structlog.contextvars.bind_contextvars(
        history=sum(len(one.history) for one in series),
        horizon=sum(one.horizon for one in series),
        samples=sum(one.params.sample_count for one in series),
    )
    if endpoint != "batch":
        structlog.contextvars.bind_contextvars(series_id=series[0].series_id)
    else:
        structlog.contextvars.bind_contextvars(items=len(series))
    for one in series:
        metrics.prediction_input_size.labels(endpoint).observe(len(one.history))


def observe_results(results: Sequence[SeriesForecast]) -> None:
    """Record the times of the model; the log line has the longest of a batch."""
    for one in results:
        metrics.queue_wait.observe(one.forecast.queue_ms / 1000)
        metrics.model_inference.observe(one.forecast.inference_ms / 1000)
    structlog.contextvars.bind_contextvars(
        queue_ms=round(max(one.forecast.queue_ms for one in results), 3),
        inference_ms=round(max(one.forecast.inference_ms for one in results), 3),
    )
