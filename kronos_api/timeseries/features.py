"""Candles and timestamps as arrays, and back.

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
TIME_FIELDS = ("minute", "hour", "weekday", "day", "month")
EPSILON = 1e-5
"""Added to each standard deviation, as the published checkpoints were trained."""
SMALLEST_STD = 0.1
"""Below this standard deviation, EPSILON would change normalised values by more than 1e-4 of them:
then a series is scaled first."""
SCALED_STD = 64.0
"""Smallest standard deviation of a series that was scaled: EPSILON is below float32 there."""
LARGEST_POWER = 100
"""Of two, that a series is scaled by: its square still fits float32's range."""
FLOOR = 1e-3
"""The lowest price of a repaired forecast, as a share of the lowest price of the history."""

Column = Sequence[float] | NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Mean and population standard deviation of one series, each float32 [6].

    Both are those of the series times `factor`, float32 [6]: powers of two, 1 where the series
    was not scaled.
    """

    mean: Floats
    std: Floats
    factor: Floats

    def restore(self, values: Floats) -> Floats:
        """Undo `normalise` on `values` [..., 6]."""
        restored: Floats = (values * (self.std + np.float32(EPSILON)) + self.mean) / self.factor
        return restored

    @property
    def scaled(self) -> bool:
        """Whether the prices were scaled."""
        return bool(self.factor[0] != 1)


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


def time_features(datetimes: Sequence[datetime]) -> Ints:
    """Minute, hour, weekday (Monday 0), day and month of each local time: int64 [n, 5]."""
    rows = [(at.minute, at.hour, at.weekday(), at.day, at.month) for at in datetimes]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(TIME_FIELDS))


def normalise(candles: Floats, clip: float) -> tuple[Floats, Scale]:
    """Standardise `candles` [history, 6] over all rows given and clip to ±`clip`.

    The published implementation adds `EPSILON` in the units of the series, so that prices of
    0.00001 would drown in it. Where it would matter, prices, volume or amount are multiplied by a
    power of two first, which is exact, so a forecast does not depend on the unit of price. Where it
    would not, the values are those of the published implementation to the bit.
    """
    factor = _factors(candles)
    scaled = candles * factor
    scale = Scale(mean=scaled.mean(axis=0), std=scaled.std(axis=0), factor=factor)
    normal = (scaled - scale.mean) / (scale.std + np.float32(EPSILON))
    return np.clip(normal, -clip, clip), scale


def _factors(candles: Floats) -> Floats:
    """Powers of two for each column, float32 [6]; the four prices have one."""
    # In float64, where the squares of tiny values do not vanish.
    wide = candles.astype(np.float64)
    std, size = wide.std(axis=0), np.abs(wide).mean(axis=0)
    factors = np.ones(len(FIELDS))
    for columns in (slice(0, 4), slice(4, 5), slice(5, 6)):
        deviation, level = std[columns].max(), size[columns].max()
        # Of constant columns only the level tells how small their unit is.
        reference = deviation if deviation > level * np.finfo(np.float32).eps else level
        if 0 < reference < SMALLEST_STD:
            factors[columns] = 2.0 ** min(np.ceil(np.log2(SCALED_STD / reference)), LARGEST_POWER)
    return factors.astype(np.float32)


def repair(values: Floats, floor: float = 0.0) -> tuple[Floats, int, int]:
    """Make candles `values` [..., 6] possible; returns them, and how many values were changed.

    Prices below `floor` are raised to it. high is raised to the highest and low lowered to the
    lowest of the four prices; volume and amount are not negative. Otherwise open and close are
    not touched. The second count is of the prices that were below `floor`.
    """
    fixed = values.copy()
    prices = np.maximum(values[..., :4], np.float32(floor))
    floored = int((prices != values[..., :4]).sum())
    fixed[..., :4] = prices
    fixed[..., 1] = prices.max(axis=-1)
    fixed[..., 2] = prices.min(axis=-1)
    fixed[..., 4:] = np.maximum(values[..., 4:], 0)
    return fixed, int((fixed != values).sum()), floored


def price_floor(candles: Floats) -> float:
    """The lowest price that a repaired forecast of `candles` [history, 6] has; above 0."""
    return float(max(candles[:, :4].min() * FLOOR, np.finfo(np.float32).tiny))
