"""From normalised sample paths to a forecast: mean, quantiles and paths in the request's units."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from kronos_api.engine.request import ForecastRequest
from kronos_api.forecast import Forecast, ForecastSteps
from kronos_api.summary import CLOSE, summarise
from kronos_api.timeseries.features import FIELDS, Floats, Scale, price_floor, repair

QUANTILE_PATHS: Final = 30
"""Sample paths of a request that asks for quantiles or a summary and sets no `sample_count`."""
FEW_PATHS: Final = 10
"""Quantiles and summaries of fewer sample paths are mostly noise: such a forecast has a warning."""


def default_paths(default: int, most: int, several: bool) -> int:
    """Sample paths of a request that sets no number: more if it needs `several`."""
    return max(default, min(QUANTILE_PATHS, most)) if several else default


def cost(request: ForecastRequest) -> int:
    """Numbers that `aggregate` reads: the paths, again for each quantile level and the summary."""
    passes = 1 + len(request.quantile_levels) + request.summary
    return request.sample_count * request.horizon * len(FIELDS) * passes


def aggregate(
    request: ForecastRequest,
    values: Floats,
    scale: Scale,
    context_used: int,
    queue_ms: float = 0.0,
    inference_ms: float = 0.0,
) -> Forecast:
    """The forecast of normalised sample paths `values`, float32 [sample_count, horizon, 6].

    Mean, quantiles and paths are each repaired by themselves if the request says so: quantiles of
    possible candles need not be a possible candle.
    """
    paths = scale.restore(values)
    arrays = [scale.restore(values.mean(axis=0))]
    arrays += [
        np.quantile(paths, level, axis=0).astype(np.float32) for level in request.quantile_levels
    ]
    if request.return_samples:
        arrays.append(paths)
    repaired = floored = 0
    floor = price_floor(request.candles)
    if request.repair:
        repairs = [repair(array, floor) for array in arrays]
        arrays = [array for array, _, _ in repairs]
        repaired = sum(count for _, count, _ in repairs)
        floored = sum(count for _, _, count in repairs)
    summary = None
    if request.summary:
        # Returns need positive prices, so the summary is that of repaired paths in any case.
        whole = request.repair and request.return_samples
        possible, _, raised = (arrays[-1], 0, 0) if whole else repair(paths, floor)
        floored += raised
        summary = summarise(possible, float(request.candles[-1, CLOSE]), request.levels)
    return Forecast(
        mean=arrays[0],
        quantiles=dict(zip(request.quantile_levels, arrays[1:], strict=False)),
        samples=arrays[-1] if request.return_samples else None,
        context_used=context_used,
        repaired=repaired,
        floored=floored,
        scaled=scale.scaled,
        queue_ms=queue_ms,
        inference_ms=inference_ms,
        summary=summary,
    )


def aggregate_steps(
    request: ForecastRequest, values: Floats, scale: Scale, first: int
) -> ForecastSteps:
    """Steps of a forecast that is not complete, from number `first` on.

    values: normalised sample paths, float32 [sample_count, n, 6].
    """
    part = aggregate(
        replace(request, return_samples=False, summary=False), values, scale, context_used=0
    )
    return ForecastSteps(first, part.mean, part.quantiles)
