"""Candles in pandas data frames: checked columns and times of a history, frames of a forecast."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo

import numpy as np
import pandas as pd

from kronos_api.errors import InvalidInput
from kronos_api.forecast import Forecast
from kronos_api.limits import MAX_HISTORY
from kronos_api.summary import step_columns
from kronos_api.timeseries import Timestamps, parse_timestamps
from kronos_api.timeseries.candles import check_candles
from kronos_api.timeseries.features import FIELDS, PRICES, Floats
from kronos_api.violations import invalid_field

TIMES = "timestamps"


def read_candles(frame: pd.DataFrame, repair: bool = False) -> tuple[Floats, Timestamps]:
    """Candles, float32 [history, 6], and their times, by the rules of the service.

    With `repair`, a high or low that lies within open and close by up to 0.1 % is moved to them.

    Raises:
        InvalidInput: naming the column, the row and the rule.
    """
    if not 1 <= len(frame) <= MAX_HISTORY:
        raise invalid_field(
            "candles",
            f"1 to {MAX_HISTORY} rows; found {len(frame)}: pass candles.tail({MAX_HISTORY})",
        )
    columns = {str(name).lower(): frame[name] for name in frame.columns}
    if missing := [name for name in PRICES if name not in columns]:
        raise InvalidInput(
            f"candles have no column {', '.join(missing)}; found {', '.join(columns) or 'none'}."
            " Rename yours, such as candles.rename(columns={'last': 'close'})."
        )
    values = {
        name: pd.to_numeric(columns[name], errors="coerce").to_numpy(np.float64)
        for name in FIELDS
        if name in columns
    }
    candles, _ = check_candles(values, repair=repair)
    texts = [
        time.isoformat() if isinstance(time, datetime) else str(time) for time in _times(frame)
    ]
    return candles, parse_timestamps(texts, TIMES)


def _times(frame: pd.DataFrame) -> pd.Series | pd.DatetimeIndex:
    """The column of times, else the index."""
    for name in frame.columns:
        if str(name).lower() == TIMES:
            column: pd.Series = frame[name]
            return column
    if isinstance(frame.index, pd.DatetimeIndex):
        return frame.index
    raise InvalidInput(
        f"candles have no times: found an index of type {type(frame.index).__name__} and no"
        f" column {TIMES}. Set one, such as"
        " candles.set_index(pd.to_datetime(candles['date']))."
    )


def future_index(frame: pd.DataFrame, future: Timestamps) -> pd.DatetimeIndex:
    """The times of a forecast, in the time zone and under the name of those of `frame`."""
    times = _times(frame)
    name = times.name if isinstance(times, pd.DatetimeIndex) else TIMES
    zone: tzinfo | None = timezone(future.offset) if future.offset is not None else None
    if isinstance(times.dtype, pd.DatetimeTZDtype):
        zone = times.dtype.tz
        last = pd.DatetimeIndex(times)[-1].time()
        if all(at.time() == last for at in future.datetimes):
            # Bars of a day or more keep their local time when the clock is changed.
            local = pd.DatetimeIndex(list(future.datetimes), name=name)
            first = np.ones(len(local), bool)  # of two equal local times
            return local.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    index = pd.DatetimeIndex(future.instants.view("M8[us]"), name=name)
    return index if zone is None else index.tz_localize("UTC").tz_convert(zone)


def forecast_frame(forecast: Forecast, index: pd.DatetimeIndex) -> pd.DataFrame:
    """Mean and quantiles by time, or the sample paths by path and time if there are any.

    float32 [horizon, 6 × (1 + levels)] with the columns `close`, ..., `close-q-0.1`, ..., then
    `p_up`, `expected_return` and `volatility` if there is a summary; or, with sample paths,
    [sample_count × horizon, 6].
    """
    if forecast.samples is not None:
        paths = pd.RangeIndex(len(forecast.samples), name="path")
        values = forecast.samples.reshape(-1, len(FIELDS))
        rows = pd.MultiIndex.from_product([paths, index])
        return pd.DataFrame(values, index=rows, columns=list(FIELDS))
    columns = {name: forecast.mean[:, at] for at, name in enumerate(FIELDS)}
    for level, quantile in forecast.quantiles.items():
        columns |= {f"{name}-q-{level:g}": quantile[:, at] for at, name in enumerate(FIELDS)}
    return pd.DataFrame(columns | step_columns(forecast.summary), index=index)
