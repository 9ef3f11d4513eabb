"""The contract of HTTP through each way of the client: the same refusals, and the same forecast."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pandas as pd
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.predictor import AsyncPredictor
from kronos_api_client import ERRORS, AsyncKronosClient, KronosError
from tests.client_python.service import history
from tests.fakes import SleepyEngine
from tests.web import predicting, predictor_of

Ask = Callable[..., Awaitable[pd.DataFrame]]


@dataclass(frozen=True, slots=True)
class Case:
    """What makes the service refuse, with what, and whether it is tried again in time."""

    code: str
    status: int
    place: str | None = None
    columns: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    fails: bool = False
    ready: bool = True


ONE_EACH = "single=1/hour, stream=1/hour, batch=1/hour"
CASES = [
    Case("INVALID_INPUT", 400, "candles.low", columns={"low": 1000.0}),
    Case("INVALID_INPUT", 400, "horizon", options={"horizon": 0}),
    Case("INVALID_INPUT", 400, "calendar", options={"calendar": "NOWHERE", "freq": "1h"}),
    Case("INVALID_INPUT", 400, "overrides.sample_count", options={"sample_count": 999}),
    Case("VALIDATION_ERROR", 422, "repair", options={"repair": "yes"}),
    Case("REQUEST_TOO_LARGE", 413, settings={"max_request_size_mb": 0.0002}),
    Case("CONTAINER_NOT_ALLOWED", 403, settings={"container_whitelist": "10.0.0.1"}),
    Case("RATE_LIMITED", 429, settings={"rate_limits": ONE_EACH}),
    Case("MODEL_NOT_READY", 503, ready=False),
    Case("INTERNAL_ERROR", 500, fails=True),
    Case(
        "PREDICTION_TIMEOUT",
        504,
        settings={"request_timeout": 0.1, "inference_timeout": 0.05},
        options={"horizon": 1},
    ),
]
WAYS = ("forecast", "stream", "many")


def ways(client: AsyncKronosClient) -> dict[str, Ask]:
    """The methods that forecast, each of which returns a frame."""

    async def forecast(df: pd.DataFrame, **options: Any) -> pd.DataFrame:
        return (await client.forecast(df, **options)).frame

    async def streamed(df: pd.DataFrame, **options: Any) -> pd.DataFrame:
        stream = client.stream(df, **options)
        candles = [candle async for candle in stream]
        assert len(candles) == len(stream.result.frame)
        return stream.result.frame

    async def many(df: pd.DataFrame, **options: Any) -> pd.DataFrame:
        forecasts = await client.forecast_many(df.assign(series_id="a"), **options)
        return forecasts["a"].frame

    return {"forecast": forecast, "stream": streamed, "many": many}


@asynccontextmanager
async def service(case: Case) -> AsyncIterator[AsyncKronosClient]:
    """A client that tries nothing again, of a service in this process."""

    def fail() -> None:
        raise RuntimeError

    slow = case.code == "PREDICTION_TIMEOUT"
    engine = SleepyEngine(seconds=60.0 if slow else 0.0, steps=1000 if slow else 5)
    engine.on_step = fail if case.fails else engine.on_step
    chosen = Settings(**case.settings)

    @asynccontextmanager
    async def predictor() -> AsyncIterator[AsyncPredictor]:
        if not case.ready:
            yield predictor_of(engine)
            return
        timeout = chosen.inference_timeout
        async with predicting(engine, inference_timeout=timeout) as ready:
            yield ready

    async with predictor() as one:
        transport = httpx.ASGITransport(create_app(chosen, predictor=one))
        async with AsyncKronosClient("http://service", transport=transport, max_wait=0) as client:
            yield client


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.place}")
async def test_refusal_is_the_class_of_its_code(case: Case, way: str) -> None:
    async with service(case) as client:
        ask, options = ways(client)[way], {"horizon": 2} | case.options
        if case.code == "RATE_LIMITED":
            await ask(history(), **options)
        with pytest.raises(KronosError) as raised:
            await ask(history().assign(**case.columns), **options)
    error = raised.value
    assert type(error) is ERRORS[case.code]
    assert (error.code, error.status) == (case.code, case.status)
    assert error.request_id
    assert (error.retry_after is not None) == (case.status in (429, 503))
    if case.place is not None:
        assert error.details[0]["field"] == case.place


async def test_each_way_has_the_same_forecast() -> None:
    async with service(CASES[0]) as client:
        options: dict[str, Any] = {"horizon": 6, "seed": 3, "quantile_levels": [0.1, 0.9]}
        options |= {"return_samples": True, "freq": "1h", "sample_count": 4}
        frames = [await ask(history(), **options) for ask in ways(client).values()]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], check_flags=False)
    assert {"close", "close-q-0.1", "close-s-3"} <= set(frames[0].columns)
