"""Random-walk candles to train and measure on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.candles import Series

QUARTER = np.timedelta64(15 * 60, "s")


def walk(rows: int, *, volatility: float = 0.01, seed: int = 0) -> Series:
    """Return `rows` quarter-hour candles of a Gaussian random walk in the logarithm."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, volatility, rows)))
    opened = np.concatenate(([100.0], close[:-1]))
    reach = np.exp(np.abs(rng.normal(0, volatility / 2, (2, rows))))
    high = np.maximum(opened, close) * reach[0]
    low = np.minimum(opened, close) / reach[1]
    volume = rng.lognormal(3, 1, rows)
    amount = volume * (opened + high + low + close) / 4
    candles = np.stack((opened, high, low, close, volume, amount), axis=1).astype(np.float32)
    timestamps = np.datetime64("2024-01-01T00:00:00", "s") + QUARTER * np.arange(rows)
    return Series("walk", timestamps, candles)


def write_csv(series: Series, path: Path) -> str:
    """Write `series` as a CSV file and return its name."""
    lines = ["datetime,open,high,low,close,volume"]
    for timestamp, row in zip(series.timestamps, series.candles, strict=True):
        lines.append(",".join([str(timestamp), *(f"{value:.9g}" for value in row[:5])]))
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)
