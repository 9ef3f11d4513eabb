"""pandas DataFrames to series and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from kronos_api_client.series import (
    Series,
    TimeAxis,
    check_finite,
    field_columns,
    no_time_axis,
    time_column,
)
from kronos_api_client.times import read_timestamps, write_timestamps


def read_one(frame: pd.DataFrame, series_id: object) -> Series:
    """The series that `frame` holds; raises `ValueError` for a frame that holds none."""
    axis, timestamps = _time_axis(frame)
    candles = {}
    for field, name in field_columns(frame.columns).items():
        values = frame[name].to_numpy(dtype="float64", na_value=float("nan")).tolist()
        check_finite(name, values)
        candles[field] = values
    last = timestamps[-1] if timestamps else None
    return Series(series_id, candles, timestamps, partial(_write, axis, last))


def read_many(frame: pd.DataFrame, id_column: str) -> list[Series]:
    """The series of a long frame, in the order of their first rows."""
    if id_column not in frame.columns:
        raise ValueError(f"no column {id_column!r} in the frame; found {list(frame.columns)}")
    if frame[id_column].isna().any():
        raise ValueError(f"{id_column} has missing values")
    groups = frame.groupby(id_column, sort=False, observed=True)
    return [read_one(group, series_id) for series_id, group in groups]


def join(frames: Mapping[Any, pd.DataFrame], id_column: str) -> pd.DataFrame:
    """One long frame of the forecasts by series; their `attrs` by series as well."""
    parts = []
    for series_id, frame in frames.items():
        part = frame.copy(deep=False)
        part.attrs = {}
        part.insert(0, id_column, [series_id] * len(part))
        parts.append(part)
    indexed = bool(parts) and isinstance(parts[0].index, pd.DatetimeIndex)
    joined = pd.concat(parts, ignore_index=not indexed) if parts else pd.DataFrame()
    metadata = {series_id: frame.attrs["kronos"] for series_id, frame in frames.items()}
    joined.attrs["kronos"] = metadata
    return joined


def set_metadata(frame: pd.DataFrame, metadata: dict[str, Any]) -> None:
    """Attach `metadata` to a forecast."""
    frame.attrs["kronos"] = metadata


def texts_of(times: Any) -> list[str]:
    """Future timestamps, as an index or a sequence, as RFC 3339 texts."""
    return _texts(pd.DatetimeIndex(times))


def _time_axis(frame: pd.DataFrame) -> tuple[TimeAxis, list[str]]:
    if isinstance(frame.columns, pd.MultiIndex):
        raise ValueError(
            "the frame has columns of several levels, as yfinance makes them for several tickers:"
            " take one ticker, or stack them to a long frame for predict_many"
        )
    if isinstance(frame.index, pd.DatetimeIndex):
        index = frame.index
        return TimeAxis(None, index.dtype, index.tz, index_name=index.name), _texts(index)
    name = time_column(frame.columns)
    if name is None:
        raise no_time_axis(frame.columns, "a DatetimeIndex or ")
    column = frame[name]
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        index = pd.DatetimeIndex(column)
        return TimeAxis(name, index.dtype, index.tz), _texts(index)
    if all(isinstance(value, str) for value in column):
        return TimeAxis(name, column.dtype, text=True), column.tolist()
    raise ValueError(
        f"column {name!r} holds {column.dtype}, not timestamps: convert it by pandas.to_datetime,"
        " with unit='s' or 'ms' if it counts from 1970"
    )


def _texts(index: pd.DatetimeIndex) -> list[str]:
    if index.hasnans:
        raise ValueError("a timestamp is missing (NaT)")
    return write_timestamps(index.as_unit("us").to_pydatetime().tolist())


def _write(
    axis: TimeAxis, last: str | None, texts: Sequence[str], columns: Mapping[str, list[float]]
) -> pd.DataFrame:
    """The forecast as a frame with the time axis of its history."""
    if axis.text:
        times: Any = pd.array(texts, dtype=axis.dtype)
    else:
        times = pd.DatetimeIndex(read_timestamps(texts, axis.zone, last)).astype(axis.dtype)
    if axis.column is not None:
        return pd.DataFrame({axis.column: times, **columns})
    return pd.DataFrame(dict(columns), index=times.rename(axis.index_name))
