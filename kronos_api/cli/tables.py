"""Candles from CSV files; forecasts as CSV files and charts.

A file has a header and one candle a line, oldest first. Columns are found by name in any case:
open, high, low, close, and if they are there volume and amount; the time stamp is the first of
`STAMPS` that is there, else the first column.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kronos_api.errors import InvalidInput
from kronos_api.features import FIELDS, PRICES, Floats, candle_matrix
from kronos_api.predictor import Forecast
from kronos_api.stamps import Refusal, Stamps, parse_stamps

STAMPS: Final = ("timestamps", "timestamp", "datetime", "date", "time")
ALIASES: Final = {"vol": "volume", "turnover": "amount"}
LARGEST: Final = 1e17
"""Larger values could overflow float32 on their way through the model."""
HISTORY_SHOWN: Final = 120
"""Candles of the history in a chart."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The last candles of a file: float32 [history, 6] and as many stamps."""

    candles: Floats
    stamps: Stamps


def read_series(path: Path, rows: int) -> Series:
    """The last `rows` candles of a CSV file; raises `InvalidInput` that names file and line."""
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise InvalidInput(f"{path}: cannot be read: {reason}") from None
    names = [str(name).strip().lower() for name in table.columns]
    table.columns = pd.Index([ALIASES.get(name, name) for name in names])
    if missing := [name for name in PRICES if name not in table.columns]:
        raise InvalidInput(f"{path}: has no column {', '.join(missing)}")
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise InvalidInput(f"{path}: has more than one column {twice}")
    if table.empty:
        raise InvalidInput(f"{path}: has no candles")
    first = max(0, len(table) - rows)
    table = table.tail(rows)
    stamps = next((name for name in STAMPS if name in table.columns), table.columns[0])
    try:
        parsed = parse_stamps(table[stamps].fillna("").to_list(), str(stamps))
    except Refusal as error:
        breach = error.breaches[0]
        rule = f"{breach.field} must be {breach.constraint}"
        raise _refusal(path, first + (breach.index or 0), rule) from None
    columns = {name: _numbers(table[name]) for name in FIELDS if name in table.columns}
    _check(columns, path, first)
    return Series(candle_matrix(columns), parsed)


def _numbers(column: pd.Series[str]) -> NDArray[np.float64]:
    """A column as float64 [n]; what is no number becomes NaN."""
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)


def _check(columns: dict[str, NDArray[np.float64]], path: Path, first: int) -> None:
    """Raise `InvalidInput` for the first rule that a candle breaks."""
    if "amount" in columns and "volume" not in columns:
        raise InvalidInput(f"{path}: has a column amount and none for volume")
    faults = []
    for name, column in columns.items():
        with np.errstate(over="ignore"):
            single = column.astype(np.float32)
        low = single <= 0 if name in PRICES else single < 0
        sign = "greater than 0" if name in PRICES else "at least 0"
        faults.append((~np.isfinite(column), f"{name} must be a finite number"))
        faults.append((low, f"{name} must be {sign}"))
        faults.append((column > LARGEST, f"{name} must be at most {LARGEST:g}"))
    top, bottom = (pick(columns["open"], columns["close"]) for pick in (np.maximum, np.minimum))
    faults.append((columns["high"] < top, "high must be at least open and close"))
    faults.append((columns["low"] > bottom, "low must be at most open and close"))
    if "volume" in columns and "amount" not in columns:
        amount = columns["volume"] * np.mean([columns[name] for name in PRICES], axis=0)
        faults.append((amount > LARGEST, f"volume times price must be at most {LARGEST:g}"))
    for faulty, rule in faults:
        if faulty.any():
            raise _refusal(path, first + int(faulty.argmax()), rule)


def _refusal(path: Path, row: int, rule: str) -> InvalidInput:
    """That the candle number `row` breaks `rule`, by its line: blank ones hold no candle.

    Pipes, which give their lines once, and what is packed are taken to have no blank ones.
    """
    try:
        text = path.read_text("utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    filled = [number for number, line in enumerate(text.split("\n"), 1) if line.strip(" \t")]
    line = filled[1 + row] if 1 + row < len(filled) else row + 2
    return InvalidInput(f"{path}: line {line}: {rule}")


def to_table(forecast: Forecast, future: Stamps) -> pd.DataFrame:
    """One row a future candle: the six fields, then each again as `close-q-0.1` and so on."""
    columns = {name: forecast.mean[:, at] for at, name in enumerate(FIELDS)}
    for level, values in forecast.quantiles.items():
        columns |= {f"{name}-q-{level:g}": values[:, at] for at, name in enumerate(FIELDS)}
    return pd.DataFrame(columns, index=pd.Index(future.texts, name="timestamps"))


def write(forecast: Forecast, future: Stamps, path: Path) -> None:
    """Write `to_table` as CSV; raises `InvalidInput` where it cannot be written."""
    try:
        to_table(forecast, future).to_csv(path)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror or error}") from None


def draw(series: Series, forecast: Forecast, future: Stamps, path: Path, title: str) -> None:
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
