"""What one forecast holds, and lets go of when it ends."""

from __future__ import annotations

import numpy as np
import pytest

from kronos_api.engine.engine import Engine
from tests.oracle import walk


def test_a_failure_ends_a_sequence_and_releases_its_cache(tiny: Engine) -> None:
    run = tiny.start(walk(10).request(5))
    while run.memory is None:
        tiny.step([run])
    assert not run.ended
    failure = ValueError("x")
    run.fail(failure)
    assert run.ended
    assert run.failure is failure
    assert run.memory is run.hidden is run.work is None


def test_values_end_a_sequence(tiny: Engine) -> None:
    run = tiny.start(walk(10).request(5))
    run.values = np.zeros((1, 5, 6), dtype=np.float32)
    assert run.ended


@pytest.mark.parametrize("horizon", [1, 5])
def test_decoded_candles_are_counted_from_the_end_of_the_history(
    tiny: Engine, horizon: int
) -> None:
    request = walk(10).request(horizon)
    assert (request.history, request.horizon) == (10, horizon)
    run, counts = tiny.start(request), []
    while not run.ended:
        counts.append(run.decoded)
        tiny.step([run])
    assert counts == sorted(counts)
    assert set(counts) == set(range(horizon + 1))
