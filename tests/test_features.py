from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from kronos_api.features import Scale, candle_matrix, normalise, repair, time_features

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
    values, count = repair(np.array([candle], dtype=np.float32))
    assert values.tolist() == [fixed]
    assert count == changed


def test_scale_of_one_row() -> None:
    row = np.array([[1, 2, 0.5, 1.5, 3, 4]], dtype=np.float32)
    normal, scale = normalise(row, 5.0)
    assert not normal.any()
    assert isinstance(scale, Scale)
    np.testing.assert_allclose(scale.restore(np.zeros((1, 6), dtype=np.float32)), row)
