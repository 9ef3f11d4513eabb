"""Aggregation: mean, quantiles and sample paths in the request's units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kronos_api.aggregate import aggregate, cost, default_paths
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.forecast import Forecast
from kronos_api.timeseries.features import FIELDS, normalise

CANDLES = np.abs(np.random.default_rng(1).normal(100, 1, (20, 6))).astype(np.float32)


def request(sample_count: int = 3, horizon: int = 4, **changes: Any) -> ForecastRequest:
    times = np.zeros((20, 5), np.int64)
    params = SamplingParams(sample_count=sample_count)
    return ForecastRequest(CANDLES, times, times[:horizon], params, **changes)


def forecast(request: ForecastRequest) -> Forecast:
    _, scale = normalise(CANDLES, 5.0)
    shape = (request.sample_count, request.horizon, 6)
    values = np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)
    return aggregate(request, values, scale, context_used=20)


def test_mean_and_quantiles_are_those_of_the_sample_paths() -> None:
    found = forecast(request(9, quantile_levels=(0.1, 0.9), return_samples=True, repair=False))
    assert found.samples is not None
    np.testing.assert_allclose(found.mean, found.samples.mean(axis=0), rtol=1e-5)
    for level in (0.1, 0.9):
        expected = np.quantile(found.samples, level, axis=0)
        np.testing.assert_allclose(found.quantiles[level], expected, rtol=1e-5)
    assert 90 < found.mean[0, FIELDS.index("close")] < 110
    assert (found.repaired, found.floored, found.scaled) == (0, 0, False)


def test_samples_are_left_out_unless_asked_for() -> None:
    assert forecast(request()).samples is None
    assert forecast(request()).quantiles == {}


def test_repair_counts_the_values_that_it_changes() -> None:
    fixed = forecast(request(return_samples=True))
    raw = forecast(request(return_samples=True, repair=False))
    assert fixed.samples is not None
    assert raw.samples is not None
    changed = int((fixed.samples != raw.samples).sum() + (fixed.mean != raw.mean).sum())
    assert fixed.repaired == changed > 0


@pytest.mark.parametrize(
    ("default", "most", "quantiles", "paths"),
    [(1, 64, False, 1), (1, 64, True, 30), (40, 64, True, 40), (1, 8, True, 8)],
)
def test_default_paths(default: int, most: int, quantiles: bool, paths: int) -> None:
    assert default_paths(default, most, quantiles) == paths


def test_cost_counts_the_paths_once_more_for_each_level() -> None:
    assert cost(request(2, 3)) == 2 * 3 * 6
    assert cost(request(2, 3, quantile_levels=(0.1, 0.9))) == 3 * 2 * 3 * 6
