"""Candles from files, checked; forecasts as tables and charts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from kronos_api.errors import InvalidInput
from kronos_api.files import ReadOptions, read_candles
from kronos_api.files.history import History, check_file
from kronos_api.forecast import Forecast
from kronos_api.summary import step_columns
from kronos_api.timeseries import Timestamps
from kronos_api.timeseries.features import FIELDS

HISTORY_SHOWN: Final = 120
"""Candles of the history in a chart."""


def read_history(
    path: Path, rows: int, options: ReadOptions | None = None, *, repair: bool = False
) -> History:
    """The last `rows` candles of a file; `repair` as in `check_candles`.

    Raises `InvalidInput` that names file and line.
    """
    try:
        return check_file(read_candles(path.read_bytes(), options, rows), repair=repair)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def to_table(forecast: Forecast, future: Timestamps) -> pd.DataFrame:
    """One row a future candle: the six fields, their quantiles as `close-q-0.1`, then the risk."""
    columns = {name: forecast.mean[:, at] for at, name in enumerate(FIELDS)}
    for level, values in forecast.quantiles.items():
        columns |= {f"{name}-q-{level:g}": values[:, at] for at, name in enumerate(FIELDS)}
    columns |= step_columns(forecast.summary)
    return pd.DataFrame(columns, index=pd.Index(future.texts, name="timestamps"))


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
