"""Candles from files, checked; forecasts as CSV files and charts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from kronos_api.errors import InvalidInput
from kronos_api.files import FileCandles, ReadOptions, read_candles
from kronos_api.forecast import Forecast
from kronos_api.summary import step_columns
from kronos_api.timeseries import Timestamps, parse_timestamps
from kronos_api.timeseries.candles import check_candles
from kronos_api.timeseries.features import FIELDS, Floats
from kronos_api.violations import InvalidFields

HISTORY_SHOWN: Final = 120
"""Candles of the history in a chart."""
OWN_WORDS: Final = {"repair_input": "--repair-input", "finite in float32": "a finite number"}
"""Words of the API's messages, and those of the command line."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The last candles of a file: float32 [history, 6], and as many timestamps.

    understood: how the file was read, in one line. repaired: values that were repaired.
    """

    candles: Floats
    timestamps: Timestamps
    understood: str
    repaired: int = 0


def read_history(
    path: Path, rows: int, options: ReadOptions | None = None, *, repair: bool = False
) -> History:
    """The last `rows` candles of a file; `repair` as in `check_candles`.

    Raises `InvalidInput` that names file and line.
    """
    try:
        return _checked(read_candles(path.read_bytes(), options, rows), repair)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def _checked(file: FileCandles, repair: bool) -> History:
    try:
        timestamps = parse_timestamps(file.timestamps, file.time_name)
        candles, repaired = check_candles(file.columns, repair=repair)
    except InvalidFields as error:
        raise InvalidInput(_by_line(error, file)) from None
    return History(candles, timestamps, file.understood, repaired)


def _by_line(error: InvalidFields, file: FileCandles) -> str:
    """The first violation, with its line of the file and the text found there."""
    first, more = error.violations[0], len(error.violations) - 1
    rule = first.constraint
    for api, own in OWN_WORDS.items():
        rule = rule.replace(api, own)
    if first.index is None:
        return f"{first.field} must be {rule}"
    found = file.cell(first.field, first.index)
    text = f"line {file.lines[first.index]}: {first.field} must be {rule}"
    if found is not None:
        text += f"; found {found[:40]!r}" if found else "; found an empty field"
    if "finite" in first.constraint or "greater than 0" in first.constraint:
        text += "; fill it, or remove the line"
    return text + (f" (and {more} more)" if more else "")


def to_table(forecast: Forecast, future: Timestamps) -> pd.DataFrame:
    """One row a future candle: the six fields, their quantiles as `close-q-0.1`, then the risk."""
    columns = {name: forecast.mean[:, at] for at, name in enumerate(FIELDS)}
    for level, values in forecast.quantiles.items():
        columns |= {f"{name}-q-{level:g}": values[:, at] for at, name in enumerate(FIELDS)}
    columns |= step_columns(forecast.summary)
    return pd.DataFrame(columns, index=pd.Index(future.texts, name="timestamps"))


def write(forecast: Forecast, future: Timestamps, path: Path) -> None:
    """Write `to_table` as CSV; raises `InvalidInput` where it cannot be written."""
    try:
        to_table(forecast, future).to_csv(path)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror or error}") from None


def draw(history: History, forecast: Forecast, future: Timestamps, path: Path, title: str) -> None:
    """Write a chart of the recent closes and the forecast, in the format of the file's suffix.

    The outermost two quantiles become a band. Raises `InvalidInput` where matplotlib is missing or
    does not know the format, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        message = "charts need matplotlib: pip install 'kronos-api[charts]'"
        raise InvalidInput(message) from None
    shown = history.candles[-HISTORY_SHOWN:]
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
    texts = [*history.timestamps.texts[-len(shown) :], *future.texts]
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
