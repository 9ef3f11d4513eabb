"""Numbers as short as they can be, and answers that read back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from kronos_api.forecast import Forecast
from kronos_api.schemas.reading import Defaults, Limits, Reader
from kronos_api.schemas.writing import Answered, shortest, write_one
from kronos_api.timeseries import Continuation
from tests.fakes import FAKE_INFO
from tests.web import body, encode

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=2), elements=finite))
def test_numbers_read_back_as_the_same_float32(values: NDArray[np.float32]) -> None:
    back = np.array(json.loads(json.dumps(shortest(values).tolist())))
    np.testing.assert_array_equal(back.astype(np.float32), values)


@given(st.floats(width=32, min_value=2**-16, max_value=2**50))
def test_numbers_are_as_short_as_numpy_writes_a_float32(value: float) -> None:
    single = np.float32(value)
    written = repr(shortest(np.array([single])).item())
    ours = np.format_float_scientific(float(written), trim="-")
    assert len(ours) <= len(np.format_float_scientific(single, trim="-"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (100.35, "100.35"), (0, "0.0"), (-0.0, "-0.0"), (16777216, "16777216.0")],
)
def test_how_numbers_look(value: float, text: str) -> None:
    assert repr(shortest(np.array([value], dtype=np.float32)).item()) == text


def test_an_answer_is_what_the_forecast_is() -> None:
    reader = Reader(Defaults(120, 1, 0, 0.9, 1), Limits(64, 64, 10_000))
    (series,) = reader.single(encode(body(quantile_levels=[0.9], return_samples=True)))
    assert series.freq is not None
    future = series.freq.following(series.history, 2)
    paths = np.random.default_rng(1).lognormal(size=(3, 2, 6)).astype(np.float32)
    forecast = Forecast(paths.mean(axis=0), {0.9: paths[0]}, paths, 4, 5, 1.5, 2.25)
    answered = Answered(series, Continuation(future), forecast)
    answer = json.loads(write_one(answered, FAKE_INFO, 9.0))
    names = ["open", "high", "low", "close", "volume", "amount"]
    rows = [[candle[name] for name in names] for candle in answer["prediction"]]
    np.testing.assert_array_equal(np.array(rows, dtype=np.float32), forecast.mean)
    back = np.array([[path[name] for name in names] for path in answer["samples"]])
    np.testing.assert_array_equal(back.astype(np.float32), paths.transpose(0, 2, 1))
    assert list(answer["quantiles"]) == ["0.9"]
    assert answer["timings_ms"] == {"queue": 1.5, "inference": 2.25, "total": 9.0}
    assert (answer["context_used"], answer["repaired"]) == (4, 5)
    assert answered.size == 2 * 6 * (1 + 1 + 3)
