"""Rules of candles: bounds, order in float32, repair, derived amounts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kronos_api.timeseries.candles import MAX_VALUE, check_candles
from kronos_api.violations import InvalidFields


def columns(**changes: list[float]) -> dict[str, NDArray[np.float64]]:
    """Two candles that break no rule, with `changes`."""
    values = {"open": [10.0, 11], "high": [12.0, 13], "low": [9.0, 10], "close": [11.0, 12]}
    return {name: np.array(column) for name, column in (values | changes).items()}


def violations(**changes: list[float]) -> list[tuple[str, int | None]]:
    with pytest.raises(InvalidFields) as caught:
        check_candles(columns(**changes))
    return [(one.field, one.index) for one in caught.value.violations]


def test_candles_become_a_matrix() -> None:
    matrix, repaired = check_candles(columns(volume=[100, 200]))
    assert matrix.dtype == np.float32
    assert repaired == 0
    assert matrix.tolist() == [[10, 12, 9, 11, 100, 1050], [11, 13, 10, 12, 200, 2300]]


def test_every_violation_has_its_field_and_row() -> None:
    assert violations(open=[np.nan, 11], high=[12, 2 * MAX_VALUE]) == [("open", 0), ("high", 1)]
    assert violations(low=[0, 10]) == [("low", 0)]
    assert violations(volume=[-1, 1]) == [("volume", 0)]
    assert violations(high=[10, 13], low=[9, 11.5]) == [("high", 0), ("low", 1)]
    assert violations(amount=[1, 1]) == [("amount", None)]
    assert violations(volume=[1, MAX_VALUE]) == [("volume", 1)]


def test_prefix_stands_before_fields() -> None:
    with pytest.raises(InvalidFields, match=r"^candles.open\[0\] must be greater than 0"):
        check_candles(columns(open=[-1, 11]), prefix="candles.")


def test_order_is_judged_in_float32() -> None:
    low = np.nextafter(10.0, 11)
    assert low > 10
    check_candles(columns(low=[low, 10]))


@pytest.mark.parametrize(("low", "repaired"), [(10.009, True), (10.02, False)])
def test_repair_moves_what_is_off_by_a_tick(low: float, repaired: bool) -> None:
    """A thousandth of the price at most."""
    if not repaired:
        with pytest.raises(InvalidFields, match="must be at most open and close"):
            check_candles(columns(low=[low, 10]), repair=True)
        return
    matrix, count = check_candles(columns(low=[low, 10]), repair=True)
    assert (matrix[0, 2], count) == (10, 1)
