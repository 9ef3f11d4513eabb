"""One series between a frame and the wire, whichever library the frame is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from math import isfinite
from typing import Any, Final, Protocol

PRICES: Final = ("open", "high", "low", "close")
FIELDS: Final = (*PRICES, "volume", "amount")
STEPS: Final = ("p_up", "expected_return", "volatility")
"""Parts of a summary with a number for each step."""
TIME_COLUMNS: Final = ("timestamps", "timestamp", "datetime", "date", "time")
"""Names of the column of timestamps, in order of preference; case does not matter."""


class Frame(Protocol):
    """A pandas or polars DataFrame."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """How a frame holds its timestamps.

    `column` is None for a pandas index, whose name is `index_name`. `dtype` is the library's;
    `text` marks strings, which are passed through as they are.
    """

    column: str | None
    dtype: Any
    zone: tzinfo | None = None
    text: bool = False
    index_name: Any = None


@dataclass(frozen=True, slots=True)
class Series:
    """The history of one series.

    `candles` are columns of equal length, `timestamps` RFC 3339 texts. `write` makes a frame of
    forecast timestamps and columns.
    """

    series_id: object
    candles: Mapping[str, list[float]]
    timestamps: list[str]
    write: Callable[[Sequence[str], Mapping[str, list[float]]], Any]


def field_columns(names: Iterable[object]) -> dict[str, str]:
    """The frame's column for each of the six fields; case does not matter, other columns neither.

    Raises `ValueError` if one of the four prices has no column, or a field has two.
    """
    listed = list(names)
    found: dict[str, str] = {}
    for name in listed:
        field = name.lower() if isinstance(name, str) else ""
        if field in FIELDS and isinstance(name, str):
            if field in found:
                raise ValueError(f"two columns for {field}: {found[field]!r} and {name!r}")
            found[field] = name
    if missing := [field for field in PRICES if field not in found]:
        raise ValueError(
            f"no column {', '.join(missing)} in the frame; found {', '.join(map(repr, listed))}."
            " Needed: open, high, low, close; optional: volume, amount"
        )
    return {field: found[field] for field in FIELDS if field in found}


def time_column(names: Iterable[object]) -> str | None:
    """The column of timestamps; None if no column has one of the names `TIME_COLUMNS`."""
    by_name = {name.lower(): name for name in names if isinstance(name, str)}
    return next((by_name[name] for name in TIME_COLUMNS if name in by_name), None)


def no_time_axis(names: Iterable[object], index: str = "") -> ValueError:
    """The error for a frame without timestamps."""
    return ValueError(
        f"no timestamps in the frame: found the columns {', '.join(map(repr, names))}."
        f" Needed: {index}a column named {', '.join(TIME_COLUMNS)}"
    )


def check_finite(field: str, values: Sequence[float | None]) -> None:
    """Raises `ValueError` for the first of `values` that is missing or not finite."""
    for row, value in enumerate(values):
        if value is None or not isfinite(value):
            raise ValueError(
                f"{field} is {value} in row {row}; JSON has finite numbers alone. Drop such rows,"
                " or drop the column if it is volume or amount"
            )


def forecast_columns(response: Mapping[str, Any]) -> dict[str, list[float]]:
    """The columns of a forecast: `close`, `close-q-0.1`, sample paths as `close-s-0`, `STEPS`."""
    steps = response["prediction"]
    columns = {field: [float(step[field]) for step in steps] for field in FIELDS}
    for level, arrays in (response.get("quantiles") or {}).items():
        columns |= {f"{field}-q-{level}": arrays[field] for field in FIELDS}
    for number, arrays in enumerate(response.get("samples") or ()):
        columns |= {f"{field}-s-{number}": arrays[field] for field in FIELDS}
    if summary := response.get("summary"):
        columns |= {name: summary[name] for name in STEPS}
    return columns
