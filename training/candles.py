"""Candles from CSV files as arrays: cleaning, coarser bars, inversion, split by time."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kronos_api.timeseries.features import FIELDS, PRICES, Floats, Ints, candle_matrix

TIMESTAMP_COLUMNS = ("datetime", "timestamps", "timestamp", "date", "time")
LONGEST_STANDSTILL = 8
"""Candles that may follow one another without any price moving before they are cut out."""
MINUTE = np.timedelta64(1, "m")

Timestamps = NDArray[np.datetime64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One instrument at one bar length: candles float32 [n, 6], timestamps datetime64[s] [n]."""

    name: str
    timestamps: Timestamps
    candles: Floats

    def __len__(self) -> int:
        return len(self.timestamps)

    def cut(self, first: int, last: int) -> Series:
        """Return rows `first` … `last` - 1."""
        return Series(self.name, self.timestamps[first:last], self.candles[first:last])

    @property
    def bar(self) -> np.timedelta64:
        """The length of one bar: the commonest distance between neighbours."""
        steps, counts = np.unique(np.diff(self.timestamps), return_counts=True)
        commonest: np.timedelta64 = steps[counts.argmax()]
        return commonest


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A series divided by time.

    Training may use `train` alone. Rows to be forecast lie in [first, last) of `series` for
    validation and test; the history before them may reach back, as it does in service.
    """

    series: Series
    train: Series
    validation: tuple[int, int]
    test: tuple[int, int]


def load(source: str) -> Series:
    """Read candles from a CSV file, or from `backtesting:NAME`, which that package ships.

    The file has open, high, low, close and perhaps volume and amount, in any case, and a column
    of timestamps: one of `TIMESTAMP_COLUMNS`, else the first.

    Raises:
        ValueError: a column is missing or fewer than two usable rows are left.
    """
    package, colon, name = source.partition(":")
    path = _shipped(name) if colon and package == "backtesting" else Path(source)
    table = pd.read_csv(path)
    columns = {str(column).strip().lower(): str(column) for column in table.columns}
    if missing := [field for field in PRICES if field not in columns]:
        raise ValueError(f"{source}: no column {missing[0]!r}")
    timestamp_column = next((c for c in TIMESTAMP_COLUMNS if c in columns), next(iter(columns)))
    timestamps = pd.to_datetime(table[columns[timestamp_column]]).to_numpy().astype("datetime64[s]")
    values = {
        field: table[columns[field]].to_numpy(np.float64) for field in FIELDS if field in columns
    }
    series = Series(path.stem, timestamps, candle_matrix(values))
    series = clean(series)
    if len(series) < 2:
        raise ValueError(f"{source}: fewer than two usable candles")
    return series


def _shipped(name: str) -> Path:
    spec = find_spec("backtesting")  # found, not imported: it would bring a plotting library
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "the package backtesting is not installed: pip install 'kronos-api[train]'"
        )
    return Path(spec.submodule_search_locations[0], "test", f"{name}.csv")


def clean(series: Series) -> Series:
    """Sort by time and drop invalid candles and candles of a market that stands still.

    Dropped are repeated timestamps (the first stays), values that are not finite, prices not above
    zero, negative volume, a high or low that another price exceeds, and standstills: runs longer
    than `LONGEST_STANDSTILL` in which no price moves.
    """
    timestamps, first = np.unique(series.timestamps, return_index=True)
    candles = series.candles[first]
    prices = candles[:, :4]
    good = np.isfinite(candles).all(axis=1) & (prices > 0).all(axis=1)
    good &= (candles[:, 4:] >= 0).all(axis=1)
    good &= (candles[:, 1] == prices.max(axis=1)) & (candles[:, 2] == prices.min(axis=1))
    timestamps, candles, prices = timestamps[good], candles[good], prices[good]

    still = prices.max(axis=1) == prices.min(axis=1)
    still[1:] &= prices[1:, 3] == prices[:-1, 3]
    run = np.cumsum(~still)  # every still candle shares the number of the move before it
    lengths = np.bincount(run[still], minlength=run.max(initial=0) + 1)
    moving = ~(still & (lengths[run] > LONGEST_STANDSTILL))
    return Series(series.name, timestamps[moving], candles[moving])


def split(
    series: Series, *, validation: float = 0.08, test: float = 0.12, embargo: int = 24
) -> Split:
    """Divide by time: train, then validation, then test, `embargo` rows between them unused."""
    rows = len(series)
    train_end = round(rows * (1 - validation - test))
    test_start = round(rows * (1 - test))
    return Split(
        series=series,
        train=series.cut(0, train_end),
        validation=(min(train_end + embargo, test_start), test_start),
        test=(min(test_start + embargo, rows), rows),
    )


def resample(series: Series, factor: int, phase: int = 0) -> Series:
    """Join every `factor` bars into one, aligned to the clock; `phase` shifts by so many bars.

    A coarse bar that lacks any of its fine ones is dropped. It carries the timestamp of its first.
    """
    width = series.bar * factor
    groups = (series.timestamps - np.datetime64(0, "s") - series.bar * phase) // width
    _, starts, counts = np.unique(groups, return_index=True, return_counts=True)
    starts = starts[counts == factor]
    rows = series.candles[starts[:, None] + np.arange(factor)]
    joined = np.stack(
        (
            rows[:, 0, 0],
            rows[..., 1].max(axis=1),
            rows[..., 2].min(axis=1),
            rows[:, -1, 3],
            rows[..., 4].sum(axis=1),
            rows[..., 5].sum(axis=1),
        ),
        axis=1,
    )
    minutes = int(width // MINUTE)
    return Series(f"{series.name}/{minutes}m+{phase}", series.timestamps[starts], joined)


def invert(candles: Floats) -> Floats:
    """Quote `candles` [..., 6] the other way round: 1/price, volume and amount exchanged."""
    inverted = candles.copy()
    inverted[..., :4] = 1 / candles[..., :4]
    inverted[..., 1], inverted[..., 2] = inverted[..., 2].copy(), inverted[..., 1].copy()
    inverted[..., 4], inverted[..., 5] = candles[..., 5], candles[..., 4]
    return inverted


def time_features(timestamps: Timestamps) -> Ints:
    """What `kronos_api.timeseries.features.time_features` returns, for arrays: int64 [n, 5]."""
    index = pd.DatetimeIndex(timestamps)
    columns = (index.minute, index.hour, index.day_of_week, index.day, index.month)
    return np.stack([column.to_numpy() for column in columns], axis=1).astype(np.int64)
