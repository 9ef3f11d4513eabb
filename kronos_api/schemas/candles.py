"""Candles of a request, in either form, as columns of float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kronos_api.schemas.requests import Candle, Columns
from kronos_api.timeseries.features import FIELDS, PRICES
from kronos_api.violations import InvalidFields, Violation


def to_columns(candles: Sequence[Candle] | Columns) -> dict[str, NDArray[np.float64]]:
    """Float64 [history] by field; volume and amount only where they are given.

    Raises `InvalidFields` for columns of different lengths, and where volume or amount is missing
    in some of the candles.
    """
    columns = _by_field(candles) if isinstance(candles, Columns) else _transposed(candles)
    return {
        name: np.array(column, dtype=np.float64)
        for name, column in columns.items()
        if column is not None
    }


def _by_field(candles: Columns) -> dict[str, Sequence[float] | None]:
    columns: dict[str, Sequence[float] | None] = {name: getattr(candles, name) for name in FIELDS}
    rows = len(candles.open)
    violations = [
        Violation(f"candles.{name}", f"as long as candles.open ({rows}); found {len(column)}")
        for name, column in columns.items()
        if column is not None and len(column) != rows
    ]
    if violations:
        raise InvalidFields(violations)
    return columns


def _transposed(candles: Sequence[Candle]) -> dict[str, Sequence[float] | None]:
    columns: dict[str, Sequence[float] | None] = {
        name: [getattr(candle, name) for candle in candles] for name in PRICES
    }
    violations = []
    for name in FIELDS[4:]:
        column = [getattr(candle, name) for candle in candles]
        missing = [index for index, value in enumerate(column) if value is None]
        columns[name] = None if missing else column
        if 0 < len(missing) < len(candles):
            rule = "given in all candles or in none"
            violations += [Violation(f"candles.{name}", rule, index) for index in missing]
    if violations:
        raise InvalidFields(violations)
    return columns
