"""Both clients against the service itself, around a fake engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import httpx
import numpy as np
import pandas as pd
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.config.serving import Serving
from kronos_api_client import (
    AsyncKronosClient,
    Calendar,
    IdempotencyConflict,
    InvalidInput,
    KronosClient,
    Models,
    Options,
    RateLimited,
    Readiness,
    TradingHours,
    __version__,
)
from kronos_api_client.connection import options
from scripts import openapi
from tests.client_python.service import FIELDS, history, long_history
from tests.fakes import FAKE_INFO
from tests.web import listening, predicting, predictor_of, until

Result = TypeVar("Result")


@asynccontextmanager
async def asynchronous(**settings: Any) -> AsyncIterator[AsyncKronosClient]:
    """The asynchronous client of a service within this process."""
    chosen = Settings(**{"rate_limit_per_minute": 10_000_000} | settings)
    async with predicting() as predictor:
        transport = httpx.ASGITransport(create_app(chosen, predictor=predictor))
        async with AsyncKronosClient("http://service", transport=transport, max_wait=0) as client:
            yield client


@asynccontextmanager
async def address(**settings: Any) -> AsyncIterator[str]:
    """The URL of a service that listens on a port."""
    predictor = predictor_of()
    async with listening(create_app(Settings(**settings), predictor=predictor)) as (host, port):
        await until(lambda: predictor.state == "ready")
        yield f"http://{host}:{port}"


async def in_thread(url: str, use: Callable[[KronosClient], Result], **options: Any) -> Result:
    """What `use` returns of a synchronous client of the service at `url`."""

    def call() -> Result:
        with KronosClient(url, **{"max_wait": 0} | options) as client:
            return use(client)

    return await asyncio.to_thread(call)


async def test_forecast_of_one_series() -> None:
    frame = history(40, tz="America/New_York")
    async with asynchronous() as client:
        result = await client.forecast(
            frame, 5, "15min", series_id="BTC", seed=3, quantile_levels=[0.1, 0.9]
        )
        again = await client.predict(frame, 5, seed=3, quantile_levels=[0.1, 0.9])
    assert list(result.frame.columns) == [
        f"{field}{name}" for name in ("", "-q-0.1", "-q-0.9") for field in FIELDS
    ]
    expected = pd.date_range(frame.index[-1], periods=6, freq="15min")[1:]
    assert list(result.frame.index) == list(expected)
    assert (result.frame["close-q-0.1"] <= result.frame["close-q-0.9"]).all()
    assert np.array_equal(again, result.frame)
    assert (result.series_id, result.seed, result.context_used) == ("BTC", 3, 40)
    assert result.model_version == FAKE_INFO.model.version
    assert result.request_id
    assert result.metadata == result.frame.attrs["kronos"]


async def test_warnings_have_codes() -> None:
    options: Any = {"sample_count": 2, "quantile_levels": [0.5]}
    async with asynchronous() as client:
        result = await client.forecast(history(), 2, **options)
    (warning,) = result.warnings
    assert warning.code == "FEW_PATHS"
    assert "sample_count" in warning.message


async def test_summary_is_typed_and_adds_columns() -> None:
    async with asynchronous() as client:
        result = await client.forecast(history(), 3, summary=True, levels=[101, 103.3], top_p=1.0)
        plain = await client.forecast(history(), 3)
    assert result.summary is not None
    assert list(result.summary.p_touch) == [101, 103.3]
    assert result.summary.p_touch[101] == 1
    assert list(result.summary.volatility) == list(result.frame["volatility"])
    assert list(result.frame.columns[6:]) == ["p_up", "expected_return", "volatility"]
    assert result.frame.attrs["kronos"]["summary"]["var_95"] == result.summary.var_95
    assert plain.summary is None


async def test_idempotency_key_repeats_a_forecast_and_each_batch() -> None:
    frame = long_history(["a", "b", "c"])
    async with asynchronous(cache="memory") as client:
        first, again = [
            await client.forecast(history(), 2, idempotency_key="one") for _ in range(2)
        ]
        many = [
            await client.predict_many(frame, horizon=2, batch_size=2, idempotency_key="many")
            for _ in range(2)
        ]
        with pytest.raises(IdempotencyConflict):
            await client.predict(history(), 3, idempotency_key="one")
    assert first.seed == again.seed
    assert np.array_equal(many[0], many[1])


async def test_daily_bars_on_an_exchange_keep_midnight_when_the_clocks_change() -> None:
    zone = "America/New_York"
    frame = history(10, start="2025-02-21", freq="B", tz=zone)  # to Thursday, 6 March
    async with asynchronous() as client:
        result = await client.predict(frame, 3, "1D", "XNYS")
    assert list(result.index) == [
        pd.Timestamp(f"2025-03-{day:02d}", tz=zone) for day in (7, 10, 11)
    ]


async def test_many_series_come_back_in_order() -> None:
    ids = [f"series {number}" for number in range(70)]
    frame = long_history(ids)
    frame["close"] += np.repeat(np.arange(70) / 100, 3)
    async with asynchronous() as client:
        many = await client.predict_many(frame, horizon=2, seed=1, concurrency=4)
        last = await client.predict(frame.tail(3).drop(columns="series_id"), horizon=2, seed=1)
    assert list(many["series_id"]) == [each for each in ids for _ in range(2)]
    assert np.array_equal(many.tail(2)[list(FIELDS)], last)


@pytest.mark.parametrize(
    "bound", [{"max_batch_items": 3}, {"max_request_size_mb": 0.002}, {"rate_limit_per_minute": 30}]
)
async def test_many_series_keep_within_smaller_bounds_of_the_service(bound: Any) -> None:
    async with asynchronous(**{"max_queue": 1000} | bound) as client:
        result = await client.predict_many(
            long_history(range(20)), horizon=5, batch_size=40, concurrency=1
        )
    assert len(result) == 100


async def test_refused_series_is_named() -> None:
    frame = long_history(["good", "bad"])
    frame.iloc[4, 1] = 1.0  # a high below open and close
    async with asynchronous() as client:
        with pytest.raises(InvalidInput) as raised:
            await client.predict_many(frame, horizon=2)
    (detail,) = raised.value.details
    assert detail["series_id"] == "bad"
    assert (detail["field"], detail["index"]) == ("candles.high", 1)


async def test_used_up_quota_raises_where_it_may_not_wait() -> None:
    async with asynchronous(rate_limit_per_minute=2) as client:
        for _ in range(2):
            await client.predict(history(), 2)
        with pytest.raises(RateLimited) as raised:
            await client.predict(history(), 2)
    assert 1 <= (raised.value.retry_after or 0) <= 61


async def test_service_describes_itself() -> None:
    async with asynchronous() as client:
        models, health, ready = await asyncio.gather(
            client.models(), client.health(), client.ready()
        )
    assert models.keys() == Models.__annotations__.keys()
    assert models["model"]["id"] == FAKE_INFO.model.id
    assert health["checks"]["model"]["status"] == "ok"
    assert ready
    assert isinstance(ready, Readiness)


async def test_calendars_are_those_that_a_forecast_may_name() -> None:
    async with asynchronous() as client:
        calendars = await client.calendars()
        tokyo = next(calendar for calendar in calendars if calendar["code"] == "XTKS")
        assert tokyo.keys() == Calendar.__annotations__.keys()
        assert tokyo["hours"].keys() == TradingHours.__annotations__.keys()
        frame = history(30, freq="1D", start="2025-03-03", tz=tokyo["time_zone"])
        result = await client.predict(frame, 2, "1D", tokyo["code"])
    assert [time.weekday() for time in result.index] == [2, 3]


def test_every_parameter_of_the_service_is_an_argument() -> None:
    schemas = json.loads(openapi.DOCUMENT.read_text("utf-8"))["components"]["schemas"]
    request, overrides = (
        schemas[name]["properties"].keys() for name in ("PredictRequest", "Overrides")
    )
    arguments = {"series_id", "horizon", "freq", "calendar"}
    made, headers = {"candles", "timestamps", "overrides"}, {"idempotency_key"}
    assert Options.__annotations__.keys() == (
        request - arguments - made | overrides - {"pred_len"} | headers
    )


async def test_synchronous_client_over_a_connection() -> None:
    async with address() as url:
        result = await in_thread(url, lambda client: client.predict(history(30), 4))
        assert len(result) == 4
        many = await in_thread(
            url,
            lambda client: client.predict_many(long_history(range(9)), horizon=2, batch_size=2),
        )
        assert list(many["series_id"]) == [number for number in range(9) for _ in range(2)]
        models, health, ready = await in_thread(
            url, lambda client: (client.models(), client.health(), client.ready())
        )
        assert models["dtype"] == "float32"
        assert health["status"] in ("healthy", "degraded")
        assert ready.status == "ok"


async def test_first_refusal_ends_a_call_for_many_series() -> None:
    frame = long_history(range(9))
    frame["low"] = 1000.0
    async with address() as url:
        call = partial(KronosClient.predict_many, df=frame, horizon=2, batch_size=2)
        with pytest.raises(InvalidInput):
            await in_thread(url, call)


async def test_headers_and_base_path_are_sent() -> None:
    seen = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    options: Any = {"headers": {"X-Request-ID": "mine"}, "transport": httpx.MockTransport(respond)}
    await in_thread("http://service/kronos/", KronosClient.models, **options)
    assert seen[0].url == "http://service/kronos/v1/models"
    assert seen[0].headers["X-Request-ID"] == "mine"
    assert seen[0].headers["User-Agent"] == f"kronos-api-client/{__version__}"


def test_an_idle_connection_is_given_up_before_the_service_closes_it() -> None:
    limits = options("http://localhost:8000", 1.0, None, __version__, None)["limits"]
    assert limits.keepalive_expiry <= Serving.model_fields["keepalive"].default - 1
