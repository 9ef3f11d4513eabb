from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from kronos_api.timeseries.features import (
    Floats,
    Scale,
    candle_matrix,
    normalise,
    price_floor,
    repair,
    time_features,
)

PRICES = {"open": [1.0, 2.0], "high": [3.0, 4.0], "low": [0.5, 1.0], "close": [2.0, 3.0]}


def test_without_volume_both_are_zero() -> None:
    assert candle_matrix(PRICES)[:, 4:].tolist() == [[0, 0], [0, 0]]


def test_amount_is_volume_times_the_mean_price() -> None:
    matrix = candle_matrix(PRICES | {"volume": [10.0, 20.0]})
    np.testing.assert_allclose(matrix[:, 5], [10 * 6.5 / 4, 20 * 10 / 4])
    given = candle_matrix(PRICES | {"volume": [10.0, 20.0], "amount": [7.0, 8.0]})
    assert given[:, 5].tolist() == [7, 8]
    assert given.dtype == np.float32


def test_amount_without_volume_is_ignored() -> None:
    assert candle_matrix(PRICES | {"amount": [7.0, 8.0]})[:, 4:].tolist() == [[0, 0], [0, 0]]


def test_time_features_are_wall_clock() -> None:
    stamps = [datetime(2024, 2, 29, 23, 59), datetime.fromisoformat("2024-03-04T05:06:07+09:00")]
    assert time_features(stamps).tolist() == [[59, 23, 3, 29, 2], [6, 5, 0, 4, 3]]
    assert time_features([]).shape == (0, 5)


def test_normalise_and_restore() -> None:
    candles = np.random.default_rng(0).normal(50, 4, (30, 6)).astype(np.float32)
    normal, scale = normalise(candles, clip=5.0)
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(scale.restore(normal), candles, rtol=1e-5)


def test_normalise_clips_and_survives_constants() -> None:
    candles = np.ones((100, 6), dtype=np.float32)
    assert not normalise(candles, 5.0)[0].any()
    candles[0] = 1000
    assert normalise(candles, 5.0)[0].max() == 5


@pytest.mark.parametrize(
    ("candle", "fixed", "changed"),
    [
        ([1, 2, 0.5, 1.5, 3, 4], [1, 2, 0.5, 1.5, 3, 4], 0),
        ([1, 0.9, 0.5, 1.5, 3, 4], [1, 1.5, 0.5, 1.5, 3, 4], 1),
        ([1, 2, 1.4, 1.5, -3, -4], [1, 2, 1, 1.5, 0, 0], 3),
        ([1, 0.5, 2, 1.5, 0, 0], [1, 2, 0.5, 1.5, 0, 0], 2),
    ],
)
def test_repair(candle: list[float], fixed: list[float], changed: int) -> None:
    values, count, floored = repair(np.array([candle], dtype=np.float32))
    assert values.tolist() == [fixed]
    assert (count, floored) == (changed, 0)


def test_repair_raises_prices_to_the_floor() -> None:
    candle = np.array([[-1, 2, -3, 0, 1, 1]], dtype=np.float32)
    values, changed, floored = repair(candle, price_floor(np.full((3, 6), 50, dtype=np.float32)))
    assert values.tolist() == [[np.float32(0.05), 2, np.float32(0.05), np.float32(0.05), 1, 1]]
    assert (changed, floored) == (3, 3)


def walk(std: float) -> Floats:
    steps = np.random.default_rng(3).normal(0, 1, (200, 6)).cumsum(axis=0)
    candles: Floats = ((steps / steps.std(axis=0) + 40) * std).astype(np.float32)
    return candles


@pytest.mark.parametrize("std", [0.2, 1.0, 3e4])
def test_values_are_those_of_the_published_formula_where_epsilon_does_not_matter(
    std: float,
) -> None:
    candles = walk(std)
    normal, scale = normalise(candles, 5.0)
    published = (candles - candles.mean(axis=0)) / (candles.std(axis=0) + np.float32(1e-5))
    assert np.array_equal(normal, np.clip(published, -5, 5))
    assert not scale.scaled


@pytest.mark.parametrize("power", range(-18, 13, 3))
def test_values_do_not_depend_on_the_unit(power: int) -> None:
    plain, _ = normalise(walk(2.0), 5.0)
    normal, scale = normalise((walk(2.0).astype(np.float64) * 10.0**power).astype(np.float32), 5.0)
    np.testing.assert_allclose(normal, plain, atol=1e-4)  # float32, 40 deviations off
    assert scale.scaled == (power < -1)
    back = scale.restore(normal) / 10.0**power
    np.testing.assert_allclose(back, walk(2.0), rtol=1e-5)


def test_constant_prices_of_any_size_come_back() -> None:
    for price in (1e-9, 0.05, 1.1, 1e5):
        candles = np.full((30, 6), price, dtype=np.float32)
        _, scale = normalise(candles, 5.0)
        np.testing.assert_allclose(scale.restore(np.ones((1, 6), np.float32)), price, rtol=2e-4)


def test_scale_of_one_row() -> None:
    row = np.array([[1, 2, 0.5, 1.5, 3, 4]], dtype=np.float32)
    normal, scale = normalise(row, 5.0)
    assert not normal.any()
    assert isinstance(scale, Scale)
    np.testing.assert_allclose(scale.restore(np.zeros((1, 6), dtype=np.float32)), row)
