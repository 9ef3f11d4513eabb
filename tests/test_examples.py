"""The example files are what their generator writes, and hold together."""

import csv
import json
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from examples import from_python, make_examples

REQUESTS = ("request-single.json", "request-batch.json")


def rows(candles: Any) -> list[dict[str, float]]:
    """Candles as objects, whichever of the two forms they are in."""
    if isinstance(candles, list):
        return candles
    return [
        dict(zip(candles, values, strict=True)) for values in zip(*candles.values(), strict=True)
    ]


def requests(name: str) -> list[dict[str, Any]]:
    document = json.loads((make_examples.FOLDER / name).read_text())
    return list(document.get("items", [document]))


@pytest.mark.parametrize("name", make_examples.files())
def test_files_are_the_generators(name: str) -> None:
    content = (make_examples.FOLDER / name).read_bytes().decode()
    assert content == make_examples.files()[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_candles_are_possible(name: str) -> None:
    for request in requests(name):
        candles = rows(request["candles"])
        assert len(candles) == len(request["timestamps"])
        assert all(before < after for before, after in pairwise(request["timestamps"]))
        for candle in candles:
            assert candle["low"] <= min(candle["open"], candle["close"])
            assert candle["high"] >= max(candle["open"], candle["close"])
            assert candle["volume"] > 0


def test_single_is_the_start_of_the_csv() -> None:
    (request,) = requests("request-single.json")
    with (make_examples.FOLDER / "candles.csv").open() as file:
        table = list(csv.DictReader(file))
    assert (len(request["candles"]), request["horizon"], len(table)) == (400, 24, 500)
    for stamp, candle, row in zip(
        request["timestamps"], request["candles"], table[:400], strict=True
    ):
        assert {**candle, "timestamps": stamp} == {
            name: value if name == "timestamps" else float(value) for name, value in row.items()
        }


def test_batch_items_differ() -> None:
    first, second = requests("request-batch.json")
    for key in ("series_id", "horizon", "overrides"):
        assert first[key] != second[key]


def test_volatility_comes_in_clusters() -> None:
    closes = [candle["close"] for candle in make_examples.make_candles(4000, seed=5)]
    squares = [(b / a - 1) ** 2 for a, b in pairwise(closes)]
    mean = sum(squares) / len(squares)
    ahead = sum((a - mean) * (b - mean) for a, b in pairwise(squares))
    assert ahead / sum((a - mean) ** 2 for a in squares) > 0.05


def test_python_example_forecasts_the_csv() -> None:
    table = from_python.forecast()
    assert table.shape == (24, 18)
    assert str(table.index[0]) == "2026-03-07 05:00:00+00:00"
    assert (table["close-q-0.1"] <= table["close-q-0.9"]).all()
    pd.testing.assert_frame_equal(table, from_python.forecast())
