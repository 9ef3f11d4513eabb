"""The predictor over an engine that sleeps: deadlines, queue, cancellation, shutdown."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.errors import (
    InternalError,
    ModelNotReady,
    PredictionTimeout,
    QueueFull,
    ShuttingDown,
    StartupError,
)
from kronos_api.predictor import AsyncPredictor
from kronos_api.telemetry.metrics import metrics
from kronos_api.timeseries.features import time_features
from tests.fakes import FAKE_INFO, SleepyEngine, stuck
from tests.web import predicting, until


def request(horizon: int = 4, sample_count: int = 3, **changes: Any) -> ForecastRequest:
    stamps = time_features([datetime(2025, 1, 1) + timedelta(hours=h) for h in range(20 + horizon)])
    candles = np.abs(np.random.default_rng(1).normal(100, 1, (20, 6))).astype(np.float32)
    params = SamplingParams(top_p=0.9, sample_count=sample_count, seed=1)
    return ForecastRequest(candles, stamps[:20], stamps[20:], params, **changes)


async def test_forecast_is_in_the_units_of_the_request() -> None:
    levels = (0.1, 0.5, 0.9)
    async with predicting(SleepyEngine()) as predictor:
        asked = request(quantile_levels=levels, return_samples=True, repair=False)
        forecast = await predictor.predict(asked, timeout=5)
    assert forecast.mean.shape == (4, 6)
    assert forecast.samples is not None
    assert forecast.samples.shape == (3, 4, 6)
    np.testing.assert_allclose(forecast.mean, forecast.samples.mean(axis=0), rtol=1e-5)
    for level in levels:
        expected = np.quantile(forecast.samples, level, axis=0)
        np.testing.assert_allclose(forecast.quantiles[level], expected, rtol=1e-5)
    assert 90 < forecast.mean[0, 3] < 110
    assert forecast.context_used == 20
    assert forecast.repaired == 0
    assert forecast.queue_ms >= 0
    assert forecast.inference_ms > 0


async def test_repair_makes_candles_possible_and_counts() -> None:
    asked = request(quantile_levels=(0.5,), return_samples=True)
    async with predicting(SleepyEngine()) as predictor:
        fixed = await predictor.predict(asked, timeout=5)
        raw = await predictor.predict(request(return_samples=True, repair=False), timeout=5)
    assert fixed.samples is not None
    assert raw.samples is not None
    for array in (fixed.mean, fixed.quantiles[0.5], fixed.samples):
        assert (array[..., 1] >= array[..., :4].max(axis=-1)).all()
        assert (array[..., 2] <= array[..., :4].min(axis=-1)).all()
        assert (array[..., 4:] >= 0).all()
    assert fixed.repaired > 0
    np.testing.assert_array_equal(fixed.samples[..., 3], raw.samples[..., 3])


async def test_large_forecasts_are_aggregated_too() -> None:
    async with predicting(SleepyEngine()) as predictor:
        forecast = await predictor.predict(
            request(horizon=300, sample_count=64, quantile_levels=(0.9,)), timeout=10
        )
    assert forecast.mean.shape == (300, 6)
    assert (forecast.quantiles[0.9][:, 3] > forecast.mean[:, 3]).mean() > 0.9


async def test_several_forecasts_are_returned_in_order() -> None:
    async with predicting(SleepyEngine()) as predictor:
        forecasts = await predictor.predict_many([request(h) for h in (3, 7, 5)], timeout=5)
    assert [len(forecast.mean) for forecast in forecasts] == [3, 7, 5]


async def test_deadline_stops_decoding() -> None:
    engine = SleepyEngine(seconds=20, steps=1000)
    async with predicting(engine) as predictor:
        with pytest.raises(PredictionTimeout):
            await predictor.predict(request(), timeout=1)  # begun by then, on a busy machine, too
        await until(lambda: predictor.active == 0)
    assert engine.runs[0].released
    assert engine.runs[0].steps > 500


async def test_inference_timeout_stops_decoding() -> None:
    async with predicting(SleepyEngine(seconds=20, steps=1000), inference_timeout=0.2) as predictor:
        with pytest.raises(PredictionTimeout, match="exceeded KRONOS_INFERENCE_TIMEOUT"):
            await predictor.predict(request(), timeout=10)


async def test_hanging_step_times_out_and_the_engine_recovers() -> None:
    hangs = threading.Event()

    def hang() -> None:
        hangs.wait()

    engine = SleepyEngine(on_step=hang)
    async with predicting(engine) as predictor:
        with pytest.raises(PredictionTimeout):
            await predictor.predict(request(), timeout=0.1)
        hangs.set()
        assert (await predictor.predict(request(), timeout=5)).mean.shape == (4, 6)


async def test_cancellation_frees_the_engine() -> None:
    engine = SleepyEngine(seconds=20, steps=1000)
    async with predicting(engine) as predictor:
        task = asyncio.create_task(predictor.predict(request(), timeout=30))
        await until(lambda: predictor.active == 1)
        assert predictor.kv_cache_bytes > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: predictor.active == 0)
    assert engine.runs[0].released


async def test_failure_of_one_forecast_cancels_the_rest_of_its_batch() -> None:
    failures = [RuntimeError("broken")]

    def break_first() -> None:
        if failures:
            raise failures.pop()

    engine = SleepyEngine(seconds=20, steps=400, on_step=break_first)
    async with predicting(engine, max_active=1) as predictor:
        with pytest.raises(InternalError):
            await predictor.predict_many([request() for _ in range(3)], timeout=30)
        await until(lambda: predictor.queue_depth == 0 and predictor.active == 0)
    assert not any(run.values is not None for run in engine.runs)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (RuntimeError("shape mismatch in layer 3"), InternalError),
        (RuntimeError("CUDA out of memory. Tried to allocate"), QueueFull),
        (MemoryError(), QueueFull),
    ],
)
async def test_engine_failures_become_errors_without_details(
    failure: Exception, error: type[InternalError | QueueFull]
) -> None:
    failures = [failure]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    failed = metrics.engine_failures._value.get()
    async with predicting(SleepyEngine(on_step=fail_once)) as predictor:
        with pytest.raises(error) as outcome:
            await predictor.predict(request(), timeout=5)
        assert "layer" not in outcome.value.message
        assert metrics.engine_failures._value.get() == failed + 1
        assert (await predictor.predict(request(), timeout=5)).mean.shape == (4, 6)


async def test_full_queue_is_refused_at_once() -> None:
    async with predicting(SleepyEngine(seconds=0.5), max_queue=2, max_active=1) as predictor:
        first = asyncio.create_task(predictor.predict(request(), timeout=5))
        await until(lambda: predictor.active == 1)
        waiting = [asyncio.create_task(predictor.predict(request(), timeout=5)) for _ in range(2)]
        await until(lambda: predictor.queue_depth == 2)
        with pytest.raises(QueueFull) as refusal:
            await predictor.predict(request(), timeout=5)
        assert refusal.value.retry_after
        forecasts = await asyncio.gather(first, *waiting)
    assert forecasts[-1].queue_ms > forecasts[0].queue_ms


async def test_stalled_engine_refuses_forecasts_until_its_step_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kronos_api.predictor.SHORTEST_STALL", 0.0)
    engine = SleepyEngine()
    async with stuck(engine) as release, predicting(engine, inference_timeout=0.1) as predictor:
        hanging = asyncio.create_task(predictor.predict(request(), timeout=30))
        await until(lambda: predictor.state == "stalled")
        with pytest.raises(ModelNotReady, match="makes no progress"):
            await predictor.predict(request(), timeout=5)
        release.set()
        with pytest.raises(PredictionTimeout):
            await hanging
        await until(lambda: predictor.state == "ready")


async def test_stop_finishes_accepted_forecasts_and_refuses_new_ones() -> None:
    async with predicting(SleepyEngine(seconds=0.3)) as predictor:
        accepted = asyncio.create_task(predictor.predict(request(), timeout=5))
        await until(lambda: predictor.active == 1)
        stopping = asyncio.create_task(predictor.stop())
        await until(lambda: predictor.state == "draining")
        with pytest.raises(ShuttingDown):
            await predictor.predict(request(), timeout=5)
        assert (await accepted).mean.shape == (4, 6)
        await stopping


async def test_stop_needs_no_thread_of_the_executor() -> None:
    async with predicting(SleepyEngine()) as predictor:
        cut = threading.Event()
        loop = asyncio.get_running_loop()
        reading = [loop.run_in_executor(None, cut.wait) for _ in range(100)]
        try:
            assert await asyncio.wait_for(predictor.stop(), 30)
        finally:
            cut.set()
        await asyncio.gather(*reading)


async def test_forecasts_are_refused_before_the_model_is_loaded() -> None:
    loaded = threading.Event()

    def load() -> SleepyEngine:
        loaded.wait()
        return SleepyEngine()

    predictor = AsyncPredictor(load)
    await predictor.start()
    assert predictor.state == "loading"
    assert predictor.info is None
    with pytest.raises(ModelNotReady) as refusal:
        await predictor.predict(request(), timeout=1)
    assert refusal.value.retry_after
    loaded.set()
    await predictor.ready()
    assert predictor.info == FAKE_INFO
    assert (await predictor.predict(request(), timeout=5)).mean.shape == (4, 6)
    await predictor.stop()


@pytest.mark.parametrize("failure", [StartupError("no such folder"), ValueError("bad weights")])
async def test_forecasts_are_refused_if_the_model_fails_to_load(failure: Exception) -> None:
    def load() -> SleepyEngine:
        raise failure

    predictor = AsyncPredictor(load)
    await predictor.start()
    with pytest.raises(StartupError, match=str(failure)):
        await predictor.ready()
    assert predictor.state == "failed"
    with pytest.raises(ModelNotReady):
        await predictor.predict(request(), timeout=1)
    await predictor.stop()
