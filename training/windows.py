"""Batches of windows from series, normalised as the service normalises them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kronos_api.timeseries.features import EPSILON, Floats, normalise
from training.candles import Series, Split, invert, resample, time_features

CLIP = 5.0
HISTORY = (64, 400)
FUTURE = (24, 112)
COARSER = {15: (2, 4, 16), 60: (2, 4), 1440: ()}
"""Bars joined into one, by the length of the fine bar in minutes."""
WEEK = np.timedelta64(7, "D")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows of one length: normalised candles [B, T, 6], time features [B, T, 5].

    Mean and standard deviation are those of rows 0 … history - 1, as in a forecast.
    """

    candles: Tensor
    time_features: Tensor
    history: int


def normalise_window(candles: Floats, history: int) -> Floats:
    """Standardise `candles` [T, 6] by their first `history` rows and clip to ±`CLIP`."""
    past, scale = normalise(candles[:history], CLIP)
    future = (candles[history:] * scale.factor - scale.mean) / (scale.std + np.float32(EPSILON))
    return np.concatenate((past, np.clip(future, -CLIP, CLIP)))


def training_series(splits: Sequence[Split]) -> list[Series]:
    """The training part of every split, at its own and at coarser bar lengths."""
    series = []
    for part in splits:
        series.append(part.train)
        minutes = int(part.train.bar // np.timedelta64(1, "m"))
        for factor in COARSER.get(minutes, ()):
            phases = range(0, factor, max(1, factor // 4))
            series += [resample(part.train, factor, phase) for phase in phases]
    return [one for one in series if len(one) >= HISTORY[0] + FUTURE[0]]


class Sampler:
    """Random windows from training series, augmented against overfitting.

    A window may be inverted (1/price), lose its volume, or move by whole weeks in the calendar,
    which keeps hour and weekday but not day and month.
    """

    def __init__(self, series: Sequence[Series], *, max_history: int, max_future: int) -> None:
        self.series = list(series)
        self.history = (min(HISTORY[0], max_history), max_history)
        self.future = (min(FUTURE[0], max_future), max_future)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw `size` windows whose common history and future lengths are drawn too."""
        longest = max(len(series) for series in self.series)
        history = int(rng.integers(self.history[0], self.history[1], endpoint=True))
        future = int(rng.integers(self.future[0], self.future[1], endpoint=True))
        future = min(future, history)  # beyond that, most values would be clipped
        history = min(history, longest - future)
        length = history + future
        long_enough = [series for series in self.series if len(series) >= length]
        weights = np.sqrt([len(series) for series in long_enough])
        picks = rng.choice(len(long_enough), size=size, p=weights / weights.sum())
        windows = [self._window(rng, long_enough[pick], length, history) for pick in picks]
        return stack(windows, history)

    def _window(
        self, rng: np.random.Generator, series: Series, length: int, history: int
    ) -> tuple[Floats, np.ndarray]:
        start = int(rng.integers(0, len(series) - length, endpoint=True))
        window = series.cut(start, start + length)
        candles = window.candles
        if rng.random() < 0.5:
            candles = invert(candles)
        if rng.random() < 0.1:
            candles = candles.copy()
            candles[:, 4:] = 0
        timestamps = window.timestamps + WEEK * int(rng.integers(0, 208))
        return normalise_window(candles, history), time_features(timestamps)


def stack(windows: Sequence[tuple[Floats, np.ndarray]], history: int) -> Batch:
    """Join single windows of one length."""
    candles, features = zip(*windows, strict=True)
    return Batch(torch.from_numpy(np.stack(candles)), torch.from_numpy(np.stack(features)), history)


def held_out(
    series: Series, targets: tuple[int, int], *, history: int, future: int, most: int
) -> Iterator[tuple[int, Series]]:
    """Windows whose future lies in rows [first, last): at most `most`, evenly spaced.

    Yields:
        The row at which the future begins, and the window of history + future rows.
    """
    first, last = max(targets[0], history), targets[1] - future
    if last < first:
        return
    count = min(most, last - first + 1)
    for row in np.linspace(first, last, count).round().astype(int).tolist():
        yield row, series.cut(row - history, row + future)


def held_out_batches(
    splits: Sequence[Split], *, history: int, future: int, most: int, size: int
) -> list[Batch]:
    """Validation windows of every split, the series that are long enough, without augmentation."""
    windows = []
    for part in splits:
        for _, window in held_out(
            part.series, part.validation, history=history, future=future, most=most
        ):
            candles = normalise_window(window.candles, history)
            windows.append((candles, time_features(window.timestamps)))
    if not windows:
        raise ValueError(f"no series has {history + future} rows up to its validation part")
    return [stack(windows[i : i + size], history) for i in range(0, len(windows), size)]
