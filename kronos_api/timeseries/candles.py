"""The rules of candles, for the API and the command line, on whole columns at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kronos_api.timeseries.features import FIELDS, PRICES, Floats, candle_matrix
from kronos_api.violations import InvalidFields, Violation

MAX_VALUE: Final = 1e17
"""Largest price, volume or amount: float32 statistics over a history of them stay finite."""
REPAIRABLE: Final = 1e-3
"""Largest share of a price by which `repair` moves a high or low: a tick of most exchanges."""

Column = NDArray[np.float64]
Mask = NDArray[np.bool_]


def check_candles(
    columns: Mapping[str, Column], *, repair: bool = False, prefix: str = ""
) -> tuple[Floats, int]:
    """Candles as float32 [history, 6] in the order of `FIELDS`, and the number of values repaired.

    columns: float64 [history] for each of `PRICES`, and for volume and amount where they are known.
    repair: move a high or low that lies within open and close by up to `REPAIRABLE` to them.
    prefix: stands before the field names in violations.

    Raises `InvalidFields` with every violation, by field and row.
    """
    values = dict(columns)
    violations: list[Violation] = []
    if "amount" in values and "volume" not in values:
        violations.append(Violation("amount", "absent where there is no volume"))
    for name in FIELDS:
        if name in values:
            violations += _bounds(name, values[name])
    repaired = _repair(values) if repair and not violations else 0
    violations += _order(values, repair)
    if not violations:
        violations += _derived_amount(values)
    if violations:
        raise InvalidFields(
            [Violation(prefix + one.field, one.constraint, one.index) for one in violations]
        )
    return candle_matrix(values), repaired


def _bounds(name: str, column: Column) -> Iterator[Violation]:
    """Values must be finite in float32, positive (prices) or not negative, and not too large."""
    price = name in PRICES
    with np.errstate(over="ignore"):
        single = column.astype(np.float32)
    finite = np.isfinite(single)
    too_low = single <= 0 if price else single < 0
    yield from _where(~finite, name, "finite in float32")
    yield from _where(finite & too_low, name, "greater than 0" if price else "at least 0")
    yield from _where(finite & (column > MAX_VALUE), name, f"at most {MAX_VALUE:g}")


def _repair(values: dict[str, Column]) -> int:
    """Move high and low to open and close where at most `REPAIRABLE` is missing; the count."""
    top = np.maximum(values["open"], values["close"])
    bottom = np.minimum(values["open"], values["close"])
    raised = (values["high"] < top) & (values["high"] >= top * (1 - REPAIRABLE))
    lowered = (values["low"] > bottom) & (values["low"] <= bottom * (1 + REPAIRABLE))
    values["high"] = np.where(raised, top, values["high"])
    values["low"] = np.where(lowered, bottom, values["low"])
    return int(raised.sum() + lowered.sum())


def _order(values: Mapping[str, Column], repair: bool) -> Iterator[Violation]:
    """Open and close lie between low and high, in float32, as the model sees them.

    Adjusted prices are often off by one unit in the last place of a double.
    """
    with np.errstate(over="ignore"):
        single = {name: values[name].astype(np.float32) for name in PRICES}
    top = np.maximum(single["open"], single["close"])
    bottom = np.minimum(single["open"], single["close"])
    # Values that are not finite have violations of their own.
    finite = np.isfinite([single[name] for name in PRICES]).all(axis=0)
    option = f"repair_input mends {REPAIRABLE:.1%}" + (" and no more" if repair else "")
    yield from _where(
        finite & (single["high"] < top), "high", f"at least open and close ({option})"
    )
    yield from _where(
        finite & (single["low"] > bottom), "low", f"at most open and close ({option})"
    )


def _derived_amount(values: Mapping[str, Column]) -> Iterator[Violation]:
    """Without amount, volume times the mean price takes its place, and has the same bound."""
    if "volume" in values and "amount" not in values:
        amount = values["volume"] * np.mean([values[name] for name in PRICES], axis=0)
        rule = f"at most {MAX_VALUE:g} when multiplied by the mean price"
        yield from _where(amount > MAX_VALUE, "volume", rule)


def _where(mask: Mask, name: str, constraint: str) -> Iterator[Violation]:
    return (Violation(name, constraint, int(index)) for index in np.flatnonzero(mask))
