from __future__ import annotations

import numpy as np

from kronos_api.timeseries.features import normalise
from tests.training.walks import walk
from training.candles import split
from training.windows import (
    CLIP,
    Sampler,
    held_out,
    held_out_batches,
    normalise_window,
    training_series,
)


def test_history_is_normalised_as_in_service_and_the_future_by_the_history() -> None:
    candles = walk(100, volatility=0.05).candles
    window = normalise_window(candles, 60)
    past, scale = normalise(candles[:60], CLIP)
    np.testing.assert_array_equal(window[:60], past)
    assert np.abs(window).max() <= CLIP
    unclipped = np.abs(window[60:]) < CLIP
    assert unclipped.any()
    restored = scale.restore(window[60:])
    np.testing.assert_allclose(restored[unclipped], candles[60:][unclipped], rtol=1e-3)


def test_the_future_does_not_change_the_history() -> None:
    candles = walk(100).candles
    changed = candles.copy()
    changed[60:] *= 1.5
    np.testing.assert_array_equal(
        normalise_window(candles, 60)[:60], normalise_window(changed, 60)[:60]
    )


def test_training_windows_come_from_the_training_part_alone() -> None:
    part = split(walk(3000))
    last = part.train.timestamps[-1]
    series = training_series([part])
    assert {len(one) for one in series} > {len(part.train)}
    for one in series:
        assert one.timestamps[-1] + one.bar <= last + part.train.bar


def test_batches_repeat_with_the_seed_and_vary_with_it() -> None:
    sampler = Sampler(training_series([split(walk(2000))]), max_history=96, max_future=32)
    first, same, other = (sampler.batch(np.random.default_rng(seed), 4) for seed in (1, 1, 2))
    assert first.candles.equal(same.candles)
    assert first.time_features.equal(same.time_features)
    assert first.candles.shape != other.candles.shape or not first.candles.equal(other.candles)
    assert 64 <= first.history <= 96
    assert first.candles.shape[1] - first.history <= 32


def test_held_out_futures_lie_in_their_part() -> None:
    part = split(walk(1000))
    rows = [row for row, _ in held_out(part.series, part.test, history=400, future=24, most=30)]
    assert len(rows) == 30
    assert rows[0] == part.test[0]
    assert rows[-1] + 24 == part.test[1]
    for row, window in held_out(part.series, part.test, history=400, future=24, most=3):
        assert window.timestamps[400] == part.series.timestamps[row]
        assert len(window) == 424


def test_validation_sees_no_test_row() -> None:
    part = split(walk(1000))
    batches = held_out_batches([part], history=200, future=24, most=10, size=4)
    assert [len(batch.candles) for batch in batches] == [4, 4, 2]
    first, last = part.validation
    windows = list(held_out(part.series, part.validation, history=200, future=24, most=10))
    assert all(first <= row and row + 24 <= last for row, _ in windows)
