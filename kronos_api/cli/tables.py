"""Candles from files, checked; forecasts as CSV files and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kronos_api.errors import InvalidInput
from kronos_api.files import Candles, Options, read_candles
from kronos_api.forecast import Forecast
from kronos_api.timeseries import Timestamps, parse_timestamps
from kronos_api.timeseries.features import FIELDS, PRICES, Floats, candle_matrix
from kronos_api.violations import InvalidFields

LARGEST: Final = 1e17
"""Larger values could overflow float32 on their way through the model."""
HISTORY_SHOWN: Final = 120
"""Candles of the history in a chart."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The last candles of a file: float32 [history, 6] and as many stamps."""

    candles: Floats
    stamps: Timestamps
    understood: str
    """One line on how the file was read."""


def read_series(path: Path, rows: int, options: Options | None = None) -> Series:
    """The last `rows` candles of a file; raises `InvalidInput` that names file and line."""
    try:
        return _series(read_candles(path.read_bytes(), options, rows))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def _series(candles: Candles) -> Series:
    lines, columns = candles.lines, candles.columns
    try:
        stamps = parse_timestamps(candles.timestamps, candles.time_name)
    except InvalidFields as error:
        violation = error.violations[0]
        line = lines[violation.index or 0]
        raise InvalidInput(
            f"line {line}: {violation.field} must be {violation.constraint}"
        ) from None
    _check(columns, lines)
    return Series(candle_matrix(columns), stamps, candles.understood)


def _check(columns: dict[str, NDArray[np.float64]], lines: Sequence[int]) -> None:
    """Raise `InvalidInput` for the first rule that a candle breaks.

    The order of prices is judged in float32, as the model sees them.
    """
    if "amount" in columns and "volume" not in columns:
        raise InvalidInput("has a column amount and none for volume")
    faults = []
    with np.errstate(over="ignore"):
        single = {name: column.astype(np.float32) for name, column in columns.items()}
    for name, column in columns.items():
        low = single[name] <= 0 if name in PRICES else single[name] < 0
        sign = "greater than 0" if name in PRICES else "at least 0"
        faults.append((~np.isfinite(column), f"{name} must be a finite number"))
        faults.append((low, f"{name} must be {sign}"))
        faults.append((column > LARGEST, f"{name} must be at most {LARGEST:g}"))
    top, bottom = (pick(single["open"], single["close"]) for pick in (np.maximum, np.minimum))
    faults.append((single["high"] < top, "high must be at least open and close"))
    faults.append((single["low"] > bottom, "low must be at most open and close"))
    if "volume" in columns and "amount" not in columns:
        amount = columns["volume"] * np.mean([columns[name] for name in PRICES], axis=0)
        faults.append((amount > LARGEST, f"volume times price must be at most {LARGEST:g}"))
    for faulty, rule in faults:
        if faulty.any():
            raise InvalidInput(f"line {lines[int(faulty.argmax())]}: {rule}")


def to_table(forecast: Forecast, future: Timestamps) -> pd.DataFrame:
    """One row a future candle: the six fields, then each again as `close-q-0.1` and so on."""
    columns = {name: forecast.mean[:, at] for at, name in enumerate(FIELDS)}
    for level, values in forecast.quantiles.items():
        columns |= {f"{name}-q-{level:g}": values[:, at] for at, name in enumerate(FIELDS)}
    return pd.DataFrame(columns, index=pd.Index(future.texts, name="timestamps"))


def write(forecast: Forecast, future: Timestamps, path: Path) -> None:
    """Write `to_table` as CSV; raises `InvalidInput` where it cannot be written."""
    try:
        to_table(forecast, future).to_csv(path)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror or error}") from None


def draw(series: Series, forecast: Forecast, future: Timestamps, path: Path, title: str) -> None:
    """Write a chart of the recent closes and the forecast; the ending says which format.

    The outermost quantiles, where there are two, become a band. Raises `InvalidInput` where
    matplotlib is not installed or knows no such format, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        message = "charts need matplotlib: pip install 'kronos-api[charts]'"
        raise InvalidInput(message) from None
    shown = series.candles[-HISTORY_SHOWN:]
    close = FIELDS.index("close")
    past, last = np.arange(1 - len(shown), 1), shown[-1:, close]
    ahead = np.arange(len(future) + 1)
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(past, shown[:, close], color="0.3", label="close")
    mean = np.concatenate([last, forecast.mean[:, close]])
    axes.plot(ahead, mean, color="tab:blue", label="forecast, mean")
    if len(forecast.quantiles) > 1:
        low, high = min(forecast.quantiles), max(forecast.quantiles)
        bottom, top = (
            np.concatenate([last, forecast.quantiles[level][:, close]]) for level in (low, high)
        )
        label = f"{low * 100:g} to {high * 100:g} %"
        axes.fill_between(ahead, bottom, top, color="tab:blue", alpha=0.2, lw=0, label=label)
    texts = [*series.stamps.texts[-len(shown) :], *future.texts]
    marks = np.linspace(0, len(texts) - 1, num=min(6, len(texts)), dtype=int)
    axes.set_xticks([int(past[0]) + int(at) for at in marks], [texts[at] for at in marks])
    axes.tick_params(axis="x", labelrotation=20)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be written: {error}") from None
