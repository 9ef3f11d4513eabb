"""Streams of the bundled checkpoint, decoded by the engine itself."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from collections.abc import Sequence as Several
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.engine.engine import Engine
from kronos_api.engine.sequence import Sequence
from kronos_api.lifecycle import Checkpoints
from kronos_api.predictor import AsyncPredictor
from tests.web import SINGLE, STREAM, body, events, listening, until

pytestmark = pytest.mark.slow

FIELDS = ("open", "high", "low", "close", "volume", "amount")
TIMINGS = re.compile(r'"timings_ms":\{[^}]*\}')
SETTINGS = Settings(rate_limit_per_minute=10_000)


class Steps:
    """Counts the steps of the engine that it loads."""

    def __init__(self) -> None:
        self.count = 0

    def load(self) -> Engine:
        checkpoints = Checkpoints(SETTINGS)
        checkpoints.find()
        engine = checkpoints.load()
        step = engine.step

        def counted(sequences: Several[Sequence]) -> None:
            self.count += 1
            step(sequences)

        engine.step = counted  # type: ignore[method-assign]
        return engine


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Steps, AsyncPredictor, httpx.AsyncClient]]:
    steps = Steps()
    predictor = AsyncPredictor(steps.load)
    async with (
        listening(create_app(SETTINGS, predictor=predictor)) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=120) as client,
    ):
        await until(lambda: predictor.state == "ready")
        yield steps, predictor, client


def random_request(choice: random.Random) -> dict[str, Any]:
    """Any history, sampling and output; in every tenth, the window of 512 candles overflows."""
    long = choice.random() < 0.1
    samples = choice.randint(1, 5)
    overrides = {
        "sample_count": samples,
        "seed": choice.randrange(2**53),
        "temperature": choice.choice([0, 0.5, 1, 1.5]),
        "top_p": choice.choice([0.5, 0.9, 1]),
        "top_k": choice.choice([0, 5]),
    }
    return body(
        choice.randint(500, 520) if long else choice.randint(1, 300),
        horizon=choice.randint(20, 40) if long else choice.randint(1, 12),
        freq="15min",
        overrides=overrides,
        quantile_levels=choice.choice([None, [0.5], [0.05, 0.95]]) if samples > 1 else None,
        return_samples=choice.random() < 0.3,
        repair=choice.random() < 0.8,
        summary=samples > 1 and choice.random() < 0.5,
    )


async def test_done_is_the_single_response_and_candles_are_near_for_random_requests() -> None:
    choice = random.Random(14)
    async with served() as (_, _, client):
        for _ in range(100):
            request = random_request(choice)
            streamed = await client.post(STREAM, json=request)
            single = await client.post(SINGLE, json=request)
            assert single.status_code == 200, single.text
            *lines, last = streamed.text.strip().split("\n")
            assert lines[-1] == "event: done"
            done = last.removeprefix("data: ")
            assert TIMINGS.sub("", done) == TIMINGS.sub("", single.text)
            check_candles(request, [data for name, data in events(streamed.text)[:-1]], done)


def check_candles(request: dict[str, Any], candles: list[Any], done: str) -> None:
    """By less than 0.01 % of the number, or of the standard deviation of the history."""
    whole = json.loads(done)
    assert [candle["step"] for candle in candles] == list(range(len(whole["prediction"])))
    history = request["candles"]
    for name in FIELDS:
        if name == "amount":
            column = [row["volume"] * row["close"] for row in history]
        else:
            column = [row[name] for row in history]
        spread = float(np.std(column))
        np.testing.assert_allclose(
            [candle[name] for candle in candles],
            [candle[name] for candle in whole["prediction"]],
            rtol=1e-4,
            atol=1e-4 * spread,
        )
        for level, arrays in whole.get("quantiles", {}).items():
            found = [candle["quantiles"][level][name] for candle in candles]
            np.testing.assert_allclose(found, arrays[name], rtol=1e-4, atol=1e-4 * spread)


async def test_a_reader_that_leaves_frees_the_engine_within_one_step() -> None:
    async with served() as (steps, predictor, client):
        async with client.stream(
            "POST", STREAM, json=body(300, horizon=200, overrides={"sample_count": 8})
        ) as response:
            async for line in response.aiter_lines():
                if '"step":3,' in line:
                    break
            (ticket,) = predictor._thread._scheduler.active
        await until(ticket.future.cancelled)
        count = steps.count
        await until(lambda: predictor.active == 0)
        assert steps.count <= count + 1
