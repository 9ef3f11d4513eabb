"""Metrics of forecasts, and the fields of a forecast's line in the access log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from starlette.requests import ClientDisconnect

from kronos_api.engine.sampling import SamplingParams
from kronos_api.errors import GONE, InternalError, KronosError, PredictionTimeout
from kronos_api.schemas.parsing import ParsedSeries
from kronos_api.schemas.serializing import SeriesForecast
from kronos_api.telemetry.metrics import metrics

MAX_VALUES: Final = 8
"""Different values of a parameter in one log line."""


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
        **_sampling([one.params for one in series]),
    )
    if endpoint != "batch":
        structlog.contextvars.bind_contextvars(series_id=series[0].series_id)
    else:
        structlog.contextvars.bind_contextvars(items=len(series))
    for one in series:
        metrics.prediction_input_size.labels(endpoint).observe(len(one.history))


def observe_results(results: Sequence[SeriesForecast]) -> None:
    """Record the times of the model."""
    for one in results:
        metrics.queue_wait.observe(one.forecast.queue_ms / 1000)
        metrics.model_inference.observe(one.forecast.inference_ms / 1000)


def _sampling(params: Sequence[SamplingParams]) -> dict[str, object]:
    """Parameters of the forecast; of a batch whose series differ, a list of the first values."""
    fields: dict[str, object] = {}
    for name in ("temperature", "top_p", "top_k", "seed"):
        values = list(dict.fromkeys(getattr(one, name) for one in params))
        fields[name] = values[0] if len(values) == 1 else values[:MAX_VALUES]
    return fields
