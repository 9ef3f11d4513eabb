"""Greedy forecasts equal the published implementation's: the same tokens, the same values."""

from __future__ import annotations

import numpy as np
import pytest

from kronos_api.engine.engine import Engine
from kronos_api.engine.window import WindowPolicy
from tests.engine.conftest import MakeEngine, together
from tests.oracle import MakeOracle, Oracle, walk

QUICK = [
    ("mini", 1, 24),
    ("mini", 2, 1),
    ("mini", 64, 24),
    ("mini", 400, 24),
    ("small", 1, 24),
    ("small", 64, 24),
    ("small", 400, 1),
]
# The shapes run through the same code, so the smallest is tried everywhere and the others where
# they differ: few and many rows, a long horizon, a full context, and one that is overrun.
SLOW = [
    *(
        ("mini", history, horizon)
        for history in (1, 2, 64, 400, 512, 1500)
        for horizon in (1, 24, 112)
        if ("mini", history, horizon) not in QUICK
    ),
    ("small", 2, 112),
    ("small", 400, 24),
    ("small", 512, 8),
    ("small", 600, 4),
    ("base", 2, 24),
    ("base", 64, 1),
    ("base", 512, 8),
]


def assert_same(engine: Engine, oracle: Oracle, history: int, horizon: int) -> None:
    series = walk(history, seed=history)
    values, s1, s2 = oracle.forecast(series, horizon)
    request = series.request(horizon)
    run = engine.run(request)
    assert run.values is not None
    np.testing.assert_array_equal(run.s1[0, history:].numpy(), s1)
    np.testing.assert_array_equal(run.s2[0, history:].numpy(), s2)
    ours = run.scale.restore(run.values[0])
    np.testing.assert_allclose(ours, values, rtol=1e-5, atol=1e-6 * float(run.scale.std.min()))


@pytest.mark.parametrize(("shape", "history", "horizon"), QUICK)
def test_greedy_equals_published(
    engines: MakeEngine, oracles: MakeOracle, shape: str, history: int, horizon: int
) -> None:
    assert_same(engines(shape, "exact"), oracles(shape), history, horizon)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "history", "horizon"), SLOW)
def test_greedy_equals_published_everywhere(
    engines: MakeEngine, oracles: MakeOracle, shape: str, history: int, horizon: int
) -> None:
    assert_same(engines(shape, "exact"), oracles(shape), history, horizon)


@pytest.mark.parametrize(("history", "horizon"), [(30, 34), (60, 12), (64, 8), (90, 20), (63, 63)])
def test_exact_window_beyond_context(
    engines: MakeEngine, oracles: MakeOracle, history: int, horizon: int
) -> None:
    assert_same(engines("tiny", "exact"), oracles("tiny"), history, horizon)


@pytest.mark.parametrize("policy", ["anchor", "exact"])
@pytest.mark.parametrize(("history", "horizon"), [(20, 44), (63, 1), (1, 63)])
def test_policies_agree_inside_context(
    engines: MakeEngine, oracles: MakeOracle, policy: WindowPolicy, history: int, horizon: int
) -> None:
    assert_same(engines("tiny", policy), oracles("tiny"), history, horizon)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["mini", "small"])
def test_greedy_equals_published_with_batch_mates(
    engines: MakeEngine, oracles: MakeOracle, shape: str
) -> None:
    """Through the scheduler, with 32 batch-mates that join and leave."""
    engine, numbers = engines(shape, "exact"), np.random.default_rng(5)
    cases = [(1, 24), (64, 24), (400, 24)]
    asked = [walk(history, seed=history).request(horizon) for history, horizon in cases]
    others = [
        walk(int(numbers.integers(1, 400)), seed=seed).request(
            int(numbers.integers(1, 40)), top_k=0, top_p=0.9, sample_count=1 + seed % 3, seed=seed
        )
        for seed in range(32)
    ]
    mixed = list(others)
    for place, request in zip((10, 21, 32), asked, strict=True):
        mixed.insert(place, request)
    runs = together(engine, mixed)
    for request, (history, horizon) in zip(asked, cases, strict=True):
        (run,) = [run for run in runs if run.request is request]
        _, s1, s2 = oracles(shape).forecast(walk(history, seed=history), horizon)
        np.testing.assert_array_equal(run.s1[0, history:].numpy(), s1)
        np.testing.assert_array_equal(run.s2[0, history:].numpy(), s2)
    for run in runs:
        alone = engine.run(run.request)
        assert run.values is not None
        assert alone.values is not None
        assert run.values.tobytes() == alone.values.tobytes()


@pytest.mark.parametrize("paths", [1, 3])
def test_paths_of_a_greedy_forecast_are_one(tiny: Engine, paths: int) -> None:
    """The shared-prompt route must give what the single-path route gives."""
    request = walk(40).request(20, sample_count=paths)
    alone = walk(40).request(20)
    values, expected = tiny.run(request).values, tiny.run(alone).values
    assert values is not None
    assert expected is not None
    for path in values:
        np.testing.assert_allclose(path, expected[0], rtol=1e-5, atol=1e-5)
