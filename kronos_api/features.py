"""Candles and time stamps as arrays, and back.

Everything here is NumPy on small arrays; nothing knows of torch, JSON or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

FIELDS = ("open", "high", "low", "close", "volume", "amount")
PRICES = FIELDS[:4]
STAMP_FIELDS = ("minute", "hour", "weekday", "day", "month")
EPSILON = 1e-5
"""Added to each standard deviation, as the published checkpoints were trained."""

Column = Sequence[float] | NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Mean and population standard deviation of one series, each float32 [6]."""

    mean: Floats
    std: Floats

    def restore(self, values: Floats) -> Floats:
        """Undo `normalise` on `values` [..., 6]."""
        restored: Floats = values * (self.std + np.float32(EPSILON)) + self.mean
        return restored


def candle_matrix(columns: Mapping[str, Column | None]) -> Floats:
    """Stack columns into float32 [history, 6] in the order of `FIELDS`.

    Without volume, volume and amount are zero; without amount, it is volume times the mean of
    the four prices, computed in float64.
    """
    prices = columns["open"]
    rows = 0 if prices is None else len(prices)
    matrix = np.zeros((rows, len(FIELDS)), dtype=np.float64)
    for column, name in enumerate(PRICES):
        matrix[:, column] = columns[name]
    volume, amount = columns.get("volume"), columns.get("amount")
    if volume is not None:
        matrix[:, 4] = volume
        matrix[:, 5] = matrix[:, 4] * matrix[:, :4].mean(axis=1) if amount is None else amount
    return matrix.astype(np.float32)


def time_features(stamps: Sequence[datetime]) -> Ints:
    """Wall-clock minute, hour, weekday (Monday 0), day and month of each stamp: int64 [n, 5]."""
    rows = [(s.minute, s.hour, s.weekday(), s.day, s.month) for s in stamps]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(STAMP_FIELDS))


def normalise(candles: Floats, clip: float) -> tuple[Floats, Scale]:
    """Standardise `candles` [history, 6] over all rows given and clip to ±`clip`."""
    scale = Scale(mean=candles.mean(axis=0), std=candles.std(axis=0))
    normal = (candles - scale.mean) / (scale.std + np.float32(EPSILON))
    return np.clip(normal, -clip, clip), scale


def repair(values: Floats) -> tuple[Floats, int]:
    """Make candles `values` [..., 6] possible and count the values changed.

    high is raised to the highest and low lowered to the lowest of the four prices; volume and
    amount are not negative. Open and close are never touched.
    """
    fixed = values.copy()
    fixed[..., 1] = values[..., :4].max(axis=-1)
    fixed[..., 2] = values[..., :4].min(axis=-1)
    fixed[..., 4:] = np.maximum(values[..., 4:], 0)
    return fixed, int((fixed != values).sum())
