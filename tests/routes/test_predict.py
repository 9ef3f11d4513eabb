"""Forecasts over HTTP: what is accepted, what comes back, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.engine.sampling import SamplingParams
from kronos_api.forecast import Forecast
from kronos_api.off_loop import off_loop
from kronos_api.predictor import AsyncPredictor
from kronos_api.routes import predict as predict_routes
from kronos_api.routes import preparation
from kronos_api.schemas.responses import PredictResponse
from kronos_api.telemetry.metrics import metrics
from kronos_api.timeseries import Frequency, Timestamps
from tests.fakes import SleepyEngine
from tests.web import (
    BATCH,
    SINGLE,
    START,
    body,
    candles,
    client_of,
    columns,
    encode,
    listening,
    predicting,
    predictor_of,
    serving,
    stamps,
    until,
)

FIELDS = ("open", "high", "low", "close", "volume", "amount")


def flat(**prices: float) -> list[dict[str, float]]:
    return [dict.fromkeys(("open", "high", "low", "close"), 5.0) | prices for _ in range(4)]


async def post(client: httpx.AsyncClient, request: Any) -> PredictResponse:
    response = await client.post(SINGLE, content=encode(request))
    assert response.status_code == 200, response.text
    return PredictResponse.model_validate_json(response.content)


@pytest.mark.parametrize(
    ("request_", "steps"),
    [
        (body(), 2),
        (body(candles=columns()), 2),
        (body(candles=columns() | {"volume": None}), 2),
        (body(candles=columns() | {"amount": [1.0] * 4}), 2),
        (body(1, freq="1h"), 2),
        (body(2048), 2),
        (body(2048, candles=columns(2048)), 2),
        (body(candles=flat()), 2),
        (body(candles=flat(volume=0)), 2),
        (body(candles=flat(volume=0, amount=0)), 2),
        (body(candles=[dict.fromkeys(FIELDS, 7)] * 4), 2),
        (body(candles=flat(high=1e17, volume=0)), 2),
        (body(candles=flat(low=1e-44)), 2),
        (body(horizon=1), 1),
        (body(horizon=512), 512),
        (body(horizon=None), 120),
        (body(horizon=None, overrides={"pred_len": 7}), 7),
        (body(overrides={"pred_len": 2}), 2),
        (body(prediction_timestamps=stamps(9)[4:], horizon=None), 5),
        (body(series_id=None), 2),
        (
            body()
            | dict.fromkeys(("freq", "calendar", "prediction_timestamps", "overrides"))
            | {"series_id": None, "quantile_levels": None},
            2,
        ),
        (body(overrides=dict.fromkeys(("pred_len", "temperature", "top_k", "top_p", "seed"))), 2),
        (body(overrides={"temperature": 0, "top_k": 1024, "top_p": 1, "seed": 2**53 - 1}), 2),
        (body(quantile_levels=[]), 2),
        # clocks go forward: another offset, still ascending
        (
            body(
                timestamps=[
                    "2025-03-30T01:30+01:00",
                    "2025-03-30T03:00+02:00",
                    "2025-03-30T03:30+02:00",
                    "2025-03-30T04:00+02:00",
                ]
            ),
            2,
        ),
    ],
)
async def test_what_is_accepted(request_: dict[str, Any], steps: int) -> None:
    async with serving() as client:
        answer = await post(client, request_)
    assert answer.series_id == request_.get("series_id")
    assert len(answer.prediction) == steps
    assert answer.quantiles is None
    assert answer.samples is None
    assert answer.model_version == "fake/model@abc"
    assert answer.tokenizer_version == "fake/tokenizer@def"
    assert not answer.demo
    assert 0 <= answer.timings_ms.inference <= answer.timings_ms.total
    assert 0 <= answer.timings_ms.queue <= answer.timings_ms.total


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"timestamps": stamps(4), "freq": "1h"},
            ["2025-03-03T10:45:00Z", "2025-03-03T11:45:00Z"],
        ),
        (
            {"timestamps": stamps(4, zone="")},
            ["2025-03-03T10:00:00", "2025-03-03T10:15:00"],
        ),
        (
            {"timestamps": stamps(4, zone="+05:30")},
            ["2025-03-03T10:00:00+05:30", "2025-03-03T10:15:00+05:30"],
        ),
        (
            {"timestamps": ["2025-03-04", "2025-03-05", "2025-03-06", "2025-03-07"]},
            ["2025-03-08", "2025-03-09"],
        ),
        (
            {"timestamps": ["2025-03-04", "2025-03-05", "2025-03-06", "2025-03-07"], "freq": "B"},
            ["2025-03-10", "2025-03-11"],
        ),
        (
            {"prediction_timestamps": ["2026-01-01 00:00", "2026-01-03T00:00:00.5"]}
            | {"timestamps": stamps(4, zone=""), "horizon": None},
            ["2026-01-01 00:00", "2026-01-03T00:00:00.5"],
        ),
        (
            {"timestamps": stamps(4, datetime(2025, 3, 7, 15), "-05:00"), "calendar": "XNYS"},
            ["2025-03-10T09:30:00-04:00", "2025-03-10T09:45:00-04:00"],
        ),
    ],
)
async def test_timestamps_come_back_in_the_style_of_the_request(
    given: dict[str, Any], expected: list[str]
) -> None:
    async with serving() as client:
        answer = await post(client, body(**given))
    assert [candle.timestamp for candle in answer.prediction] == expected


async def test_the_engine_gets_what_the_request_says() -> None:
    engine = SleepyEngine()
    params = SamplingParams(temperature=0.5, top_k=9, top_p=0.8, sample_count=3, seed=11)
    async with serving(engine) as client:
        sent = body(overrides=asdict(params), timestamps=stamps(4, zone="+02:00"))
        answer = await post(client, sent)
    (request,) = (run.request for run in engine.runs)
    assert request.params == params
    assert answer.seed == 11
    # the local time as written: minute, hour, weekday, day, month
    assert request.history_time_features.tolist()[1] == [15, 9, 0, 3, 3]
    assert request.future_time_features.tolist() == [[0, 10, 0, 3, 3], [15, 10, 0, 3, 3]]


async def test_defaults_are_the_settings() -> None:
    engine = SleepyEngine()
    chosen = {"temperature": 0.7, "top_k": 5, "top_p": 0.6, "sample_count": 2, "pred_len": 9}
    settings = {f"default_{name}": value for name, value in chosen.items()}
    async with serving(engine, **settings) as client:
        await post(client, body(horizon=None))
    (request,) = (run.request for run in engine.runs)
    found = request.params
    assert (found.temperature, found.top_k, found.top_p, found.sample_count) == (0.7, 5, 0.6, 2)
    assert request.horizon == 9


async def test_one_seed_one_forecast() -> None:
    async with serving() as client:
        first = await post(client, body())
        again = await post(client, body(overrides={"seed": first.seed}))
        other = await post(client, body())
    assert again.prediction == first.prediction
    assert other.seed != first.seed
    assert other.prediction != first.prediction


async def test_quantiles_and_samples() -> None:
    asked = body(
        overrides={"sample_count": 5, "seed": 1},
        quantile_levels=[0.1, 0.5, 0.00001],
        return_samples=True,
        repair=False,
    )
    async with serving() as client:
        answer = await post(client, asked)
    assert answer.samples is not None
    assert answer.quantiles is not None
    assert list(answer.quantiles) == ["0.1", "0.5", "0.00001"]
    paths = np.array([path.close for path in answer.samples])
    assert paths.shape == (5, 2)
    means = [candle.close for candle in answer.prediction]
    np.testing.assert_allclose(means, paths.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(answer.quantiles["0.5"].close, np.median(paths, axis=0), rtol=1e-5)


async def test_repair_makes_possible_candles_and_counts() -> None:
    async with serving() as client:
        asked = body(horizon=50, overrides={"seed": 1})
        answer = await post(client, asked)
        raw = await post(client, asked | {"repair": False})
    assert raw.repaired == 0
    assert answer.repaired > 0
    for candle in answer.prediction:
        assert candle.low <= min(candle.open, candle.close)
        assert candle.high >= max(candle.open, candle.close)
        assert candle.volume >= 0


async def test_a_batch_is_answered_in_order() -> None:
    items = [
        body(series_id="a", horizon=3),
        body(10, series_id="b", horizon=1, candles=columns(10)),
        body(series_id="c", overrides={"sample_count": 4, "seed": 5}, return_samples=True),
    ]
    async with serving() as client:
        response = await client.post(BATCH, json={"items": items})
        alone = await post(client, items[2])
    answers = [PredictResponse.model_validate(one) for one in response.json()]
    assert [one.series_id for one in answers] == ["a", "b", "c"]
    assert [len(one.prediction) for one in answers] == [3, 1, 2]
    assert answers[2].prediction == alone.prediction
    assert answers[2].samples == alone.samples


async def test_a_batch_that_is_laid_out_oddly_is_read_as_a_whole() -> None:
    whole = json.dumps({"items": [body()]})
    async with serving() as client:
        odd = await client.post(BATCH, content=whole.replace('"items"', '"\\u0069tems"'))
        pretty = await client.post(BATCH, content=json.dumps(json.loads(whole), indent=2))
    assert odd.status_code == pretty.status_code == 200


async def test_large_bodies_and_answers_take_the_way_through_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[bool] = []
    inner = off_loop

    async def watched(large: bool, work: Any, *args: object) -> Any:
        def seen(*values: object) -> Any:
            threads.append(threading.current_thread() is not threading.main_thread())
            return work(*values)

        return await inner(large, seen, *args)

    for module in (predict_routes, preparation):
        monkeypatch.setattr(module, "off_loop", watched)
    large = body(2048, horizon=512, overrides={"sample_count": 64}, return_samples=True)
    async with serving() as client:
        await post(client, body())
        answer = await post(client, large)
    assert threads == [False] * 4 + [True, False, False, True]
    assert answer.samples is not None
    assert len(answer.samples) == 64


async def test_the_timestamps_of_a_large_batch_are_made_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these takes some 10 ms: so many would delay other callers."""
    threads: list[bool] = []
    inner = Frequency.following

    def following(self: Frequency, history: Timestamps, horizon: int) -> Timestamps:
        threads.append(threading.current_thread() is not threading.main_thread())
        return inner(self, history, horizon)

    monkeypatch.setattr(Frequency, "following", following)
    item = body(series_id="a", horizon=512, freq="BQE")
    async with serving() as client:
        await post(client, item)
        response = await client.post(BATCH, json={"items": [item] * 6})
    assert response.status_code == 200
    assert threads == [False] + [True] * 6


async def test_a_forecast_without_a_number_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    nan = np.full((2, 6), np.nan, dtype=np.float32)
    async with predicting() as predictor:

        async def broken(*_: object, **__: object) -> list[Forecast]:
            return [Forecast(nan, {}, None, 4, 0, 0.0, 0.0)]

        monkeypatch.setattr(predictor, "predict_many", broken)
        async with client_of(create_app(Settings(), predictor=predictor)) as client:
            response = await client.post(SINGLE, json=body())
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "INTERNAL_ERROR"


async def test_before_the_model_is_ready_and_after_it_has_gone() -> None:
    release = threading.Event()

    async with predicting() as predictor:
        app = create_app(Settings(), predictor=predictor)
        predictor.drain()
        async with client_of(app) as client:
            gone = await client.post(SINGLE, json=body())
    assert (gone.status_code, gone.json()["error"]["code"]) == (503, "SHUTTING_DOWN")
    assert int(gone.headers["Retry-After"]) >= 1

    def load() -> Any:
        release.wait()
        return SleepyEngine()

    loading = AsyncPredictor(load)
    await loading.start()
    try:
        async with client_of(create_app(Settings(), predictor=loading)) as client:
            early = await client.post(SINGLE, json=body())
    finally:
        release.set()
        await loading.stop()
    assert (early.status_code, early.json()["error"]["code"]) == (503, "MODEL_NOT_READY")
    assert int(early.headers["Retry-After"]) >= 1


async def test_a_full_queue_refuses_at_once() -> None:
    settings = {"max_queue": 2, "max_batch_items": 2}
    async with serving(SleepyEngine(seconds=0.5), **settings) as client:
        running = [asyncio.create_task(client.post(SINGLE, json=body())) for _ in range(8)]
        answers = await asyncio.gather(*running)
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "QUEUE_FULL"
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", [SINGLE, BATCH])
async def test_a_missed_deadline_is_told_in_time_and_counted(path: str) -> None:
    endpoint = path.rsplit("/", 1)[1]
    labels = {"endpoint": endpoint}
    before = metrics.registry.get_sample_value("kronos_timeouts_total", labels) or 0
    request = body() if path == SINGLE else {"items": [body()]}
    engine = SleepyEngine(seconds=2000, steps=10_000)
    async with serving(engine, request_timeout=0.2, inference_timeout=0.1) as client:
        response = await client.post(path, json=request)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "PREDICTION_TIMEOUT")
    assert all(run.steps > 0 for run in engine.runs)  # the forecast was not waited for
    assert metrics.registry.get_sample_value("kronos_timeouts_total", labels) == before + 1


async def test_a_body_that_never_ends_meets_the_deadline() -> None:
    async def trickle() -> Any:
        yield b"{"
        await asyncio.sleep(30)

    async with serving(request_timeout=0.2, inference_timeout=0.1) as client:
        headers = {"Content-Length": "100"}
        response = await client.post(SINGLE, content=trickle(), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "PREDICTION_TIMEOUT")


async def test_a_failing_engine_is_an_internal_error() -> None:
    def fail() -> None:
        raise RuntimeError("s3cr3t")

    async with serving(SleepyEngine(on_step=fail)) as client:
        response = await client.post(SINGLE, json=body())
    assert (response.status_code, response.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert "s3cr3t" not in response.text


async def test_a_caller_that_leaves_takes_its_forecast_along() -> None:
    engine = SleepyEngine(seconds=20, steps=2000)
    labels = {"endpoint": "single", "status": "499"}
    name = "kronos_prediction_latency_seconds_count"
    before = metrics.registry.get_sample_value(name, labels) or 0
    predictor = predictor_of(engine)
    async with listening(create_app(Settings(), predictor=predictor)) as (host, port):
        await until(lambda: predictor.state == "ready")
        content = encode(body())
        head = f"POST {SINGLE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        _, writer = await asyncio.open_connection(host, port)
        writer.write(head.encode() + content)
        await writer.drain()
        await until(lambda: predictor.active == 1)
        writer.close()
        await writer.wait_closed()
        await until(lambda: predictor.active == 0)
        await until(lambda: metrics.registry.get_sample_value(name, labels) == before + 1)
    assert engine.runs[0].released


async def test_what_is_measured() -> None:
    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(name, labels) or 0

    def now() -> list[float]:
        return [
            value("kronos_requests_total", route=SINGLE, status="200"),
            value("kronos_prediction_latency_seconds_count", endpoint="single", status="200"),
            value("kronos_prediction_input_size_sum", endpoint="single"),
            value("kronos_candles_decoded_total"),
            value("kronos_model_inference_seconds_count"),
            value("kronos_queue_wait_seconds_count"),
            value("kronos_errors_total", code="INVALID_INPUT"),
            value("kronos_prediction_latency_seconds_count", endpoint="single", status="400"),
        ]

    async with serving() as client:
        before = now()
        await post(client, body(4, horizon=3, overrides={"sample_count": 5}))
        await client.post(SINGLE, json=body(horizon=0))
        after = now()
    assert np.subtract(after, before).tolist() == [1, 1, 4, 15, 1, 1, 1, 1]


async def test_what_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as client:
        named = {"X-Request-ID": "r-1"}
        odd = "a\n{}\u2028"
        await client.post(SINGLE, json=body(series_id=odd), headers=named)
        items = [body(), body(5, horizon=3)]
        await client.post(BATCH, json={"items": items}, headers={"X-Request-ID": "r-2"})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    single, batch = (line for line in lines if line["event"] == "request")
    expected = {"request_id": "r-1", "endpoint": SINGLE, "status": 200, "series_id": odd}
    expected |= {"history": 4, "horizon": 2, "samples": 1}
    assert expected.items() <= single.items()
    assert {"latency_ms", "queue_ms", "inference_ms", "timestamp", "level"} <= set(single)
    expected = {"request_id": "r-2", "items": 2, "history": 9, "horizon": 5, "samples": 2}
    assert expected.items() <= batch.items()
    assert "series_id" not in batch


async def test_the_longest_history_and_horizon_are_answered() -> None:
    start = START - timedelta(days=3)
    request = encode(body(2048, candles=columns(2048), timestamps=stamps(2048, start), horizon=512))
    async with serving() as client:
        response = await client.post(SINGLE, content=request)
    assert response.status_code == 200
    assert len(response.json()["prediction"]) == 512


def test_candles_of_the_tests_break_no_rule() -> None:
    for candle in candles(300):
        assert candle["low"] <= min(candle["open"], candle["close"])
        assert candle["high"] >= max(candle["open"], candle["close"])
