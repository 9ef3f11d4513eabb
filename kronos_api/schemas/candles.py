"""The rules of candles, on whole columns at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.schemas.requests import MAX_VALUE, Candle, Columns
from kronos_api.timeseries.features import FIELDS, PRICES, Floats, candle_matrix
from kronos_api.violations import InvalidFields, Violation

FINITE: Final = "finite in float32"
LARGEST: Final = f"at most {MAX_VALUE:g}"
MENDED: Final = 1e-3
"""The share of a price by which `repair_input` moves a high or low: a tick of most exchanges."""

Column = Sequence[float]


def read_candles(candles: Sequence[Candle] | Columns, mend: bool = False) -> tuple[Floats, int]:
    """Candles as float32 [history, 6], and how many values were mended.

    With `mend`, a high or low that lies within open and close by up to `MENDED` is moved to them.
    Raises `InvalidFields` that names every value at fault.
    """
    columns = _by_field(candles) if isinstance(candles, Columns) else _transposed(candles)
    values = {
        name: np.array(column, dtype=np.float64)
        for name, column in columns.items()
        if column is not None
    }
    violations = [
        violation for name, column in values.items() for violation in _bounds(name, column)
    ]
    mended = _mend(values) if mend and not violations else 0
    violations += _order(values)
    if not violations:
        violations += _computed_amount(values)
    if violations:
        raise InvalidFields(violations)
    return candle_matrix(values), mended


def _mend(values: dict[str, NDArray[np.float64]]) -> int:
    """Move high and low out to open and close where little is missing; how many were moved."""
    top = np.maximum(values["open"], values["close"])
    bottom = np.minimum(values["open"], values["close"])
    raised = (values["high"] < top) & (values["high"] >= top * (1 - MENDED))
    lowered = (values["low"] > bottom) & (values["low"] <= bottom * (1 + MENDED))
    values["high"] = np.where(raised, top, values["high"])
    values["low"] = np.where(lowered, bottom, values["low"])
    return int(raised.sum() + lowered.sum())


def _by_field(candles: Columns) -> dict[str, Column | None]:
    columns: dict[str, Column | None] = {name: getattr(candles, name) for name in FIELDS}
    rows = len(candles.open)
    violations = [
        Violation(f"candles.{name}", f"as long as candles.open ({rows})")
        for name, column in columns.items()
        if column is not None and len(column) != rows
    ]
    if candles.amount is not None and candles.volume is None:
        violations.append(_amount_alone(None))
    if violations:
        raise InvalidFields(violations)
    return columns


def _transposed(candles: Sequence[Candle]) -> dict[str, Column | None]:
    columns: dict[str, Column | None] = {
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
    if not violations and columns["volume"] is None and columns["amount"] is not None:
        violations.append(_amount_alone(0))
    if violations:
        raise InvalidFields(violations)
    return columns


def _amount_alone(index: int | None) -> Violation:
    return Violation("candles.amount", "absent where there is no volume", index)


def _bounds(name: str, column: NDArray[np.float64]) -> list[Violation]:
    """Finite, of the right sign as float32, and not too large."""
    with np.errstate(over="ignore"):
        single = column.astype(np.float32)
    finite = np.isfinite(single)
    price = name in PRICES
    low = single <= 0 if price else single < 0
    return (
        _where(~finite, name, FINITE)
        + _where(finite & low, name, "greater than 0" if price else "at least 0")
        + _where(finite & (column > MAX_VALUE), name, LARGEST)
    )


def _order(values: dict[str, NDArray[np.float64]]) -> list[Violation]:
    """Open and close lie between low and high, in float32, as the model sees them.

    Adjusted prices are often off by one unit in the last place of a double.
    """
    with np.errstate(over="ignore"):
        single = {name: values[name].astype(np.float32) for name in PRICES}
    top = np.maximum(single["open"], single["close"])
    bottom = np.minimum(single["open"], single["close"])
    # Values that are not finite have violations of their own.
    finite = np.isfinite([single[name] for name in PRICES]).all(axis=0)
    return _where(finite & (single["high"] < top), "high", "at least open and close") + _where(
        finite & (single["low"] > bottom), "low", "at most open and close"
    )


def _computed_amount(values: dict[str, NDArray[np.float64]]) -> list[Violation]:
    if "volume" not in values or "amount" in values:
        return []
    amount = values["volume"] * np.mean([values[name] for name in PRICES], axis=0)
    return _where(amount > MAX_VALUE, "volume", f"{LARGEST} when multiplied by the mean price")


def _where(faulty: NDArray[np.bool_], name: str, constraint: str) -> list[Violation]:
    return [
        Violation(f"candles.{name}", constraint, int(index)) for index in np.flatnonzero(faulty)
    ]
