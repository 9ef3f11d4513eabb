"""polars DataFrames to series and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from kronos_api_client.series import (
    Series,
    TimeAxis,
    check_finite,
    field_columns,
    no_time_axis,
    time_column,
)
from kronos_api_client.times import read_timestamps, write_timestamps


def read_one(frame: pl.DataFrame, series_id: object) -> Series:
    """The series that `frame` holds; raises `ValueError` for a frame that holds none."""
    axis, timestamps = _time_axis(frame)
    candles = {}
    for field, name in field_columns(frame.columns).items():
        values = frame[name].cast(pl.Float64).to_list()
        check_finite(name, values)
        candles[field] = values
    last = timestamps[-1] if timestamps else None
    return Series(series_id, candles, timestamps, partial(_write, axis, last))


def read_many(frame: pl.DataFrame, id_column: str) -> list[Series]:
    """The series of a long frame, in the order of their first rows."""
    if id_column not in frame.columns:
        raise ValueError(f"no column {id_column!r} in the frame; found {frame.columns}")
    if frame[id_column].has_nulls():
        raise ValueError(f"{id_column} has missing values")
    groups = frame.partition_by(id_column, maintain_order=True)
    return [read_one(group, group[id_column][0]) for group in groups]


def join(frames: Mapping[Any, pl.DataFrame], id_column: str) -> pl.DataFrame:
    """One long frame of the forecasts by series."""
    parts = [
        frame.clone().insert_column(0, pl.Series(id_column, [series_id] * frame.height))
        for series_id, frame in frames.items()
    ]
    return pl.concat(parts) if parts else pl.DataFrame()


def set_metadata(frame: pl.DataFrame, metadata: dict[str, Any]) -> None:
    """Nothing: polars frames carry no metadata; `forecast` returns it."""
    del frame, metadata


def texts_of(times: Any) -> list[str]:
    """Future timestamps, as a polars Series or a sequence, as RFC 3339 texts."""
    return _texts(pl.Series(times))


def _time_axis(frame: pl.DataFrame) -> tuple[TimeAxis, list[str]]:
    name = time_column(frame.columns)
    if name is None:
        raise no_time_axis(frame.columns)
    column = frame[name]
    dtype = column.dtype
    if isinstance(dtype, pl.String):
        return TimeAxis(name, dtype, text=True), column.to_list()
    if not isinstance(dtype, (pl.Datetime, pl.Date)):
        raise ValueError(
            f"column {name!r} holds {dtype}, not timestamps: convert it, for example by"
            " polars.from_epoch(name, time_unit='ms') or str.to_datetime"
        )
    zone = dtype.time_zone if isinstance(dtype, pl.Datetime) else None
    return TimeAxis(name, dtype, ZoneInfo(zone) if zone else None), _texts(column)


def _texts(column: pl.Series) -> list[str]:
    if column.has_nulls():
        raise ValueError("a timestamp is missing (null)")
    times: list[Any] = column.to_list()
    if times and isinstance(times[0], str):
        return times
    if times and isinstance(times[0], date) and not isinstance(times[0], datetime):
        return [time.isoformat() for time in times]
    return write_timestamps(times)


def _write(
    axis: TimeAxis, last: str | None, texts: Sequence[str], columns: Mapping[str, list[float]]
) -> pl.DataFrame:
    """The forecast as a frame with the time axis of its history."""
    assert axis.column is not None
    if axis.text:
        times = pl.Series(axis.column, list(texts))
    else:
        read = read_timestamps(texts, axis.zone, last)
        dtype = axis.dtype
        if isinstance(dtype, pl.Date) and any(len(text) > len("2025-06-02") for text in texts):
            dtype = pl.Datetime("us")  # steps shorter than a day
        times = pl.Series(axis.column, read, dtype=pl.Datetime("us", _name(axis))).cast(dtype)
    return pl.DataFrame([times, *(pl.Series(name, values) for name, values in columns.items())])


def _name(axis: TimeAxis) -> str | None:
    return str(axis.zone) if axis.zone is not None else None
