"""The whole service over a real server, most of it on the bundled checkpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.telemetry.phases import ENGINE
from tests.fakes import SleepyEngine, stuck
from tests.web import SINGLE, body, listening, predictor_of, until

EXAMPLE = Path(__file__).parent.parent / "examples" / "request-single.json"


@asynccontextmanager
async def service(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that is ready."""
    # One thread, so that a busy machine does not make threads wait in turn.
    app = create_app(Settings(torch_threads=1, rate_limit_enabled=False, **settings))
    limits = httpx.Limits(max_connections=None)
    # Longer than the client keeps a connection: neither closes one that the other is about to use.
    async with listening(app, timeout_keep_alive=60) as (host, port):
        url = f"http://{host}:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            while (await client.get("/v1/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
            yield client


def stable(answer: httpx.Response) -> dict[str, Any]:
    """What a repeated request must repeat: everything but the times it took."""
    assert answer.status_code == 200, answer.text
    whole: dict[str, Any] = answer.json()
    return {name: value for name, value in whole.items() if name != "timings_ms"}


async def test_the_example_is_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    asked = json.loads(EXAMPLE.read_text())
    async with service() as client:
        answer = stable(await client.post(SINGLE, json=asked))
    assert len(asked["timestamps"]) == 400
    assert len(answer["prediction"]) == 24
    assert answer["demo"] is True
    assert answer["model_version"].startswith("kronos-demo")
    last = asked["timestamps"][-1]
    assert all(candle["timestamp"] > last for candle in answer["prediction"])
    printed = map(json.loads, capsys.readouterr().out.splitlines())
    (line,) = (one for one in printed if one["event"] == "request" and one["endpoint"] == SINGLE)
    phases = [line[f"{phase}_ms"] for phase in ENGINE]
    assert all(spent > 0 for spent in phases)
    assert sum(phases) == pytest.approx(line["inference_ms"], abs=0.01)


async def test_healthz_is_answered_during_a_long_forecast() -> None:
    """The event loop is free while the engine is in a step, however long that takes."""
    engine = SleepyEngine()
    predictor = predictor_of(engine)
    app = create_app(Settings(rate_limit_enabled=False), predictor=predictor)
    async with (
        stuck(engine) as release,
        listening(app) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client,
    ):
        await until(lambda: predictor.state == "ready")
        forecast = asyncio.create_task(client.post(SINGLE, json=body()))
        await until(lambda: predictor.active == 1)
        for _ in range(20):
            assert (await client.get("/v1/healthz")).json() == {"status": "ok"}
        assert not forecast.done()
        release.set()
        assert (await forecast).status_code == 200


@pytest.mark.slow
async def test_a_thousand_seeded_requests_repeat_under_changing_load() -> None:
    """Whatever else is decoded at the time, a request and its seed have one answer."""
    kinds = [
        body(rows, horizon=horizon, overrides=overrides, quantile_levels=[0.1, 0.9])
        for rows, horizon, overrides in [
            (4, 3, {"seed": 1}),
            (64, 8, {"seed": 2, "sample_count": 3}),
            (100, 5, {"seed": 3, "temperature": 0.7, "top_k": 20}),
            (400, 12, {"seed": 4, "top_p": 0.5}),
            (20, 30, {"seed": 5, "temperature": 0}),
        ]
    ]
    async with service(max_queue=2000) as client:
        alone = [stable(await client.post(SINGLE, json=kind)) for kind in kinds]
        equal = 0
        for burst in (1, 7, 32, 100, 60) * 5:
            sent = [index % len(kinds) for index in range(burst)]
            answers = await asyncio.gather(*(client.post(SINGLE, json=kinds[i]) for i in sent))
            for index, answer in zip(sent, answers, strict=True):
                equal += stable(answer) == alone[index]
    assert equal == 1000
