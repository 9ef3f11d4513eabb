"""Responses: numbers in their shortest text, which reads back as the same float32."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from kronos_api.forecast import Forecast
from kronos_api.schemas.parsing import Defaults, Limits, RequestParser
from kronos_api.schemas.serializing import SeriesForecast, serialize_one
from kronos_api.timeseries import Continuation
from kronos_api.timeseries.features import FIELDS, Floats
from tests.fakes import FAKE_INFO
from tests.web import body, encode

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
PARSER = RequestParser(Defaults(120, 1, 0, 0.9, 1), Limits(64, 64, 10_000))


def forecast_of(mean: Floats, samples: Floats, **changes: Any) -> SeriesForecast:
    """A forecast of `mean` and `samples` for as many steps, with one quantile."""
    request = body(horizon=len(mean), quantile_levels=[0.9], return_samples=True, **changes)
    (series,) = PARSER.single(encode(request))
    assert series.freq is not None
    future = series.freq.following(series.history, len(mean))
    forecast = Forecast(mean, {0.9: samples[0]}, samples, 4, 5, 1.5, 2.25)
    return SeriesForecast(series, Continuation(future), forecast)


def serialized(values: NDArray[Any]) -> bytes:
    """The response to a forecast whose mean and only sample path are `values` [horizon, 6]."""
    single = values.astype(np.float32)
    return serialize_one(forecast_of(single, single[None]), FAKE_INFO, 9.0)


def rows_of(response: bytes) -> NDArray[Any]:
    """The numbers of `prediction`, float64 [horizon, 6]."""
    prediction = json.loads(response)["prediction"]
    return np.array([[candle[name] for name in FIELDS] for candle in prediction])


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(6)), elements=finite))
def test_numbers_read_back_as_the_same_float32(values: NDArray[np.float32]) -> None:
    response = serialized(values)
    path = json.loads(response)["samples"][0]
    for back in (rows_of(response), np.array([path[name] for name in FIELDS]).T):
        np.testing.assert_array_equal(back.astype(np.float32), values)


@given(st.floats(width=32, min_value=2**-16, max_value=2**50))
def test_numbers_are_as_short_as_numpy_writes_a_float32(value: float) -> None:
    single = np.float32(value)
    written = rows_of(serialized(np.full((1, 6), single)))[0, 0]
    ours = np.format_float_scientific(written, trim="-")
    assert len(ours) <= len(np.format_float_scientific(single, trim="-"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, b"0.1,"), (100.35, b"100.35,"), (-0.0, b"-0.0,"), (16777216, b"16777216.0,")],
)
def test_form_of_numbers(value: float, text: bytes) -> None:
    assert b'"open":' + text in serialized(np.full((1, 6), value))


def test_response_has_the_numbers_of_the_forecast() -> None:
    paths = np.random.default_rng(1).lognormal(size=(3, 2, 6)).astype(np.float32)
    result = forecast_of(paths.mean(axis=0), paths)
    response = serialize_one(result, FAKE_INFO, 9.0)
    np.testing.assert_array_equal(rows_of(response).astype(np.float32), paths.mean(axis=0))
    content = json.loads(response)
    back = np.array([[path[name] for name in FIELDS] for path in content["samples"]])
    np.testing.assert_array_equal(back.astype(np.float32), paths.transpose(0, 2, 1))
    assert list(content["quantiles"]) == ["0.9"]
    assert content["timings_ms"] == {"queue": 1.5, "inference": 2.25, "total": 9.0}
    assert (content["context_used"], content["repaired"]) == (4, 5)
    assert result.size == 2 * 6 * (1 + 1 + 3)
