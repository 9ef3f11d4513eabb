"""Scores of quantile forecasts, and reference forecasts to compare them with.

Returns are logarithms of close over the last close of the history. Arrays: N windows, K future
candles, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVELS = (0.1, 0.5, 0.9)
BASIS_POINTS = 1e4

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of one forecaster on one set of windows."""

    pinball_bp: float
    """Pinball loss, averaged over `LEVELS`, windows and future candles, in 1/10,000."""
    coverage: float
    """Share of closes inside the band between the outer levels; 0.8 is right."""
    mae_bp: float
    """Mean absolute error of the median, in 1/10,000."""
    pinball_last_bp: float
    """Pinball loss of the last future candle alone."""
    coverage_last: float

    def to_json(self) -> dict[str, float]:
        """Return the figures, rounded for reading."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def pinball(truth: Doubles, quantiles: Doubles, levels: Sequence[float] = LEVELS) -> Doubles:
    """Pinball loss of `quantiles` [N, K, L] for `truth` [N, K], averaged over levels: [N, K]."""
    over = truth[..., None] - quantiles
    level = np.asarray(levels)
    loss: Doubles = np.maximum(level * over, (level - 1) * over).mean(axis=-1)
    return loss


def inside(truth: Doubles, quantiles: Doubles) -> NDArray[np.bool_]:
    """Whether `truth` [N, K] lies within the first and last of `quantiles` [N, K, L]."""
    within: NDArray[np.bool_] = (quantiles[..., 0] <= truth) & (truth <= quantiles[..., -1])
    return within


def score(truth: Doubles, quantiles: Doubles) -> Score:
    """Score `quantiles` [N, K, 3] at `LEVELS` against `truth` [N, K]."""
    loss = pinball(truth, quantiles) * BASIS_POINTS
    within = inside(truth, quantiles)
    return Score(
        pinball_bp=float(loss.mean()),
        coverage=float(within.mean()),
        mae_bp=float(np.abs(truth - quantiles[..., 1]).mean() * BASIS_POINTS),
        pinball_last_bp=float(loss[:, -1].mean()),
        coverage_last=float(within[:, -1].mean()),
    )


def last_close(windows: int, horizon: int) -> Doubles:
    """Quantiles of the forecast that nothing moves: zeros [N, K, 3]."""
    return np.zeros((windows, horizon, len(LEVELS)))


def historical_volatility(closes: Doubles, horizon: int) -> Doubles:
    """Quantiles of a Gaussian random walk as volatile as the histories `closes` [N, H]."""
    step = np.diff(np.log(closes), axis=1).std(axis=1)
    spread = step[:, None] * np.sqrt(np.arange(1, horizon + 1))
    normal = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    quantiles: Doubles = spread[..., None] * normal
    return quantiles
