"""Summaries of sample paths, against the formulas of docs/api.md computed number by number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_api.aggregate import aggregate
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.forecast import Summary
from kronos_api.summary import as_json, summarise, tails_cut
from kronos_api.timeseries.features import Floats, Scale, repair


def candle_paths(seed: int, sample_count: int, horizon: int, spread: float) -> Floats:
    """Possible candles around 100, float32 [sample_count, horizon, 6]."""
    numbers = np.random.default_rng(seed)
    shape = (sample_count, horizon, 6)
    walk = 100 * np.exp(numbers.normal(0, spread, shape).cumsum(axis=1))
    return repair(walk.astype(np.float32), 0.1)[0]


def quantile(values: list[float], level: float) -> float:
    """Linear between the two neighbours in rank."""
    ranked = sorted(values)
    position = level * (len(ranked) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (position - below) * (ranked[above] - ranked[below])


def slow(paths: Floats, last_close: float, levels: list[float]) -> dict[str, Any]:
    """The formulas of docs/api.md, without arrays."""
    listed: list[list[dict[str, float]]] = [
        [{"high": float(c[1]), "low": float(c[2]), "close": float(c[3])} for c in path]
        for path in paths
    ]
    count, last = len(listed), float(np.float32(last_close))
    found: dict[str, Any] = {"p_up": [], "expected_return": [], "volatility": []}
    for step in range(len(listed[0])):
        closes = [path[step]["close"] for path in listed]
        logs = [math.log(close / last) for close in closes]
        mean = sum(logs) / count
        found["p_up"].append(sum(close > last for close in closes) / count)
        found["expected_return"].append(sum(close / last - 1 for close in closes) / count)
        spread = sum((log - mean) ** 2 for log in logs) / (count - 1)
        found["volatility"].append(math.sqrt(spread))
    losses = [1 - path[-1]["close"] / last for path in listed]
    found["var_95"] = quantile(losses, 0.95)
    worst = [loss for loss in losses if loss >= found["var_95"] - 1e-12]
    found["es_95"] = sum(worst) / len(worst)
    falls = []
    for path in listed:
        peak, deepest = last, 0.0
        for candle in path:
            peak = max(peak, candle["close"])
            deepest = max(deepest, 1 - candle["close"] / peak)
        falls.append(deepest)
    found["max_drawdown"] = {"median": quantile(falls, 0.5), "p95": quantile(falls, 0.95)}
    found["p_touch"] = []
    for level in levels:
        price = float(np.float32(level))
        touched = sum(
            price == last
            or any(candle["high"] >= price > last for candle in path)
            or any(candle["low"] <= price < last for candle in path)
            for path in listed
        )
        found["p_touch"].append({"level": price, "probability": touched / count})
    return found


@given(
    seed=st.integers(0, 2**32),
    sample_count=st.integers(2, 70),
    horizon=st.integers(1, 12),
    spread=st.sampled_from([0.0, 1e-4, 0.01, 0.3]),
    last_close=st.floats(50, 200, width=32),
    levels=st.lists(st.floats(20, 500, width=32), max_size=4),
)
def test_summary_is_that_of_the_formulas(
    seed: int,
    sample_count: int,
    horizon: int,
    spread: float,
    last_close: float,
    levels: list[float],
) -> None:
    paths = candle_paths(seed, sample_count, horizon, spread)
    listed = [*levels, last_close, float(paths[0, 0, 1]), float(paths[-1, -1, 2])]
    found, expected = as_json(summarise(paths, last_close, listed)), slow(paths, last_close, listed)
    assert found.keys() == expected.keys()
    for name in ("p_up", "expected_return", "volatility", "var_95", "es_95"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert found["max_drawdown"] == pytest.approx(expected["max_drawdown"], rel=1e-5, abs=1e-7)
    for touch, by_hand in zip(found["p_touch"], expected["p_touch"], strict=True):
        assert touch == pytest.approx(by_hand, rel=1e-6)
    assert found["es_95"] >= found["var_95"] - 1e-6


def summary_of(repaired: bool, samples: bool = False) -> tuple[Summary, int]:
    """That of paths of which the first falls below zero, and the prices raised to the floor."""
    candles = np.full((5, 6), 100, np.float32)
    times = np.zeros((5, 5), np.int64)
    values = np.zeros((4, 3, 6), np.float32)
    values[0, 1:] = -3  # three deviations below a mean of two
    ones, none = np.ones(6, np.float32), np.zeros(6, np.float32)
    scale = Scale(mean=100 * ones, std=50 * ones, factor=ones + none)
    request = ForecastRequest(
        candles,
        times,
        times[:3],
        SamplingParams(sample_count=4),
        summary=True,
        levels=(100.0, 1.0, 101.0),
        repair=repaired,
        return_samples=samples,
    )
    forecast = aggregate(request, values, scale, context_used=5)
    assert forecast.summary is not None
    return forecast.summary, forecast.floored


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("repaired", [False, True])
def test_paths_below_zero_are_summarised_at_the_floor(repaired: bool, samples: bool) -> None:
    summary, floored = summary_of(repaired, samples)
    content = as_json(summary)
    assert floored == 8  # two candles of four prices
    assert content["p_up"] == [0, 0, 0]
    assert content["volatility"][2] == pytest.approx(math.log(1000) / 2, rel=1e-5)
    assert content["es_95"] == pytest.approx(0.999, rel=1e-5)  # 0.1 is a thousandth of 100
    assert [touch["probability"] for touch in content["p_touch"]] == [1, 0.25, 0]


def test_returns_beyond_float32_are_its_largest_number() -> None:
    paths = np.full((2, 1, 6), 1e17, np.float32)
    summary = summarise(paths, 1e-38, [])
    assert np.isfinite(summary.expected_return).all()
    assert np.isfinite(summary.var_95)


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (SamplingParams(), None),
        (SamplingParams(temperature=1.5), None),
        (SamplingParams(top_p=0.9, top_k=50), "top_p 0.9, top_k 50 leaves out"),
        (SamplingParams(temperature=0.5), "temperature 0.5 leaves out"),
        (SamplingParams(temperature=0), "greedy"),
    ],
)
def test_sampling_that_cuts_the_tails_is_named(params: SamplingParams, found: str | None) -> None:
    message = tails_cut(params)
    assert message is None if found is None else found in (message or "")
