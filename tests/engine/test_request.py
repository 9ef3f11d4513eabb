"""A forecast request: lengths are those of its arrays."""

from __future__ import annotations

import dataclasses

import pytest

from kronos_api.engine.request import ForecastRequest
from tests.oracle import walk


@pytest.fixture
def request_() -> ForecastRequest:
    return walk(10).request(4, sample_count=3, seed=7)


def test_lengths_are_those_of_the_arrays(request_: ForecastRequest) -> None:
    assert (request_.history, request_.horizon, request_.sample_count) == (10, 4, 3)
    assert request_.history_time_features.shape == (10, 5)


def test_request_and_parameters_are_frozen(request_: ForecastRequest) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        request_.clip = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        request_.params.seed = 1  # type: ignore[misc]
