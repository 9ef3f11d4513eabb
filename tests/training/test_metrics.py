from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from tests.training.walks import walk
from training.candles import split
from training.evaluate import Case, compare, returns, table
from training.metrics import (
    LEVELS,
    Doubles,
    historical_volatility,
    inside,
    last_close,
    pinball,
    score,
)

NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


def test_pinball_by_hand() -> None:
    truth = np.array([[1.0]])
    quantiles = np.array([[[0.0, 3.0, 2.0]]])
    # 0.1 × 1 below, 0.5 × 2 above, 0.1 × 1 above
    assert pinball(truth, quantiles)[0, 0] == pytest.approx((0.1 + 1.0 + 0.1) / 3)


def test_right_quantiles_of_a_gaussian() -> None:
    truth = np.random.default_rng(0).normal(size=(200_000, 1))
    quantiles = np.broadcast_to(NORMAL, (200_000, 1, 3))
    figures = score(truth, quantiles)
    # The least pinball loss of a standard normal at level q is its density at the q-quantile.
    least = np.mean([NormalDist().pdf(z) for z in NORMAL]) * 1e4
    assert figures.pinball_bp == pytest.approx(least, rel=0.01)
    assert figures.coverage == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_wrong_width_costs(factor: float) -> None:
    truth = np.random.default_rng(0).normal(size=(20_000, 1))
    right = np.broadcast_to(NORMAL, (20_000, 1, 3))
    assert score(truth, right * factor).pinball_bp > score(truth, right).pinball_bp * 1.05


def test_the_band_includes_its_edges() -> None:
    quantiles = np.array([[[-1.0, 0.0, 1.0]]])
    assert inside(np.array([[1.0]]), quantiles).all()
    assert not inside(np.array([[1.001]]), quantiles).any()


def test_last_close_pays_half_the_absolute_error() -> None:
    truth = np.random.default_rng(0).normal(size=(50, 24))
    figures = score(truth, last_close(50, 24))
    assert figures.pinball_bp == pytest.approx(np.abs(truth).mean() * 1e4 / 2, rel=0.02)
    assert figures.coverage == 0


def test_historical_volatility_covers_a_random_walk() -> None:
    part = split(walk(20_000, seed=3))
    scores = compare(part.series, part.test, Case(windows=95), {})
    assert scores["historical volatility"].coverage == pytest.approx(0.8, abs=0.06)
    assert scores["historical volatility"].pinball_bp < scores["last close"].pinball_bp


def test_historical_volatility_grows_with_the_root_of_time() -> None:
    closes = np.exp(np.cumsum(np.random.default_rng(0).normal(size=(1, 4001)), axis=1) / 100)
    quantiles = historical_volatility(closes, 4)
    assert quantiles[0, 0, 2] == pytest.approx(0.01 * NORMAL[2], rel=0.05)
    assert quantiles[0, 3, 2] == pytest.approx(2 * quantiles[0, 0, 2])
    np.testing.assert_allclose(quantiles[..., 0], -quantiles[..., 2])


def test_a_forecaster_is_scored_on_returns_of_the_close() -> None:
    def oracle(windows: object, case: Case) -> Doubles:
        assert isinstance(windows, list)
        closes = np.stack([w.candles[case.history :, 3] for w in windows])
        found = [returns(w, case.history, c) for w, c in zip(windows, closes, strict=True)]
        return np.repeat(np.stack(found)[..., None], 3, axis=-1)

    part = split(walk(2000))
    case = Case(history=100, windows=20)
    scores = compare(part.series, part.test, case, {"oracle": oracle})
    assert scores["oracle"].mae_bp == pytest.approx(0, abs=0.01)
    assert "| walk | oracle | 0.00 |" in table({"walk": scores})
