"""Forecasts as a stream of server-sent events: order, errors, and readers that leave or stall."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence
from kronos_api.predictor import AsyncPredictor
from kronos_api.routes import predict as predict_routes
from kronos_api.server.connection_limit import ConnectionLimit
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.http_protocol import Protocol
from kronos_api.server.pace import Pace
from kronos_api.telemetry.metrics import metrics
from tests.fakes import FakeCandleDecoder, SleepyEngine
from tests.gateway import gateway, needs_nginx
from tests.web import (
    SINGLE,
    STREAM,
    body,
    client_of,
    encode,
    events,
    listening,
    predictor_of,
    serving,
    until,
)


class GatedEngine(SleepyEngine):
    """Takes a step only after `allow`, and counts the steps that it began."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps=steps, on_step=self._wait)
        self.begun = 0
        self._allowed = threading.Semaphore(0)

    def allow(self, steps: int) -> None:
        self._allowed.release(steps)

    def _wait(self) -> None:
        self.begun += 1
        assert self._allowed.acquire(timeout=60)


class SmallBuffers(Protocol):
    """Has the kernel hold little that its client does not read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        link = transport.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().connection_made(transport)


@asynccontextmanager
async def served(
    engine: SleepyEngine, **options: Any
) -> AsyncIterator[tuple[AsyncPredictor, httpx.AsyncClient]]:
    """The service on a real connection, over which events arrive one by one.

    `options` are uvicorn's.
    """
    predictor = predictor_of(engine)
    async with (
        listening(create_app(Settings(), predictor=predictor), **options) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client,
    ):
        await until(lambda: predictor.state == "ready")
        yield predictor, client


def value(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0


async def test_every_step_is_a_candle_and_done_is_the_single_response() -> None:
    request = body(horizon=7, quantile_levels=[0.1, 0.9], overrides={"seed": 5, "sample_count": 4})
    async with serving() as client:
        streamed = await client.post(STREAM, json=request, headers={"Accept-Encoding": "gzip"})
        single = await client.post(SINGLE, json=request)
    assert streamed.status_code == 200
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed.headers["cache-control"] == "no-cache"
    assert streamed.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in streamed.headers
    *candles, (last, done) = events(streamed.text)
    expected = single.json()
    assert last == "done"
    assert {name for name, _ in candles} == {"candle"}
    assert [data.pop("step") for _, data in candles] == list(range(7))
    for number, (_, data) in enumerate(candles):
        quantiles = {
            level: {name: column[number] for name, column in arrays.items()}
            for level, arrays in expected["quantiles"].items()
        }
        assert data == expected["prediction"][number] | {"quantiles": quantiles}
    del done["timings_ms"], expected["timings_ms"]
    assert json.dumps(done) == json.dumps(expected)


async def test_candles_are_sent_as_they_are_decoded_and_heartbeats_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predict_routes, "HEARTBEAT", 0.01)
    engine = GatedEngine(steps=3)
    async with (
        served(engine) as (_, client),
        client.stream("POST", STREAM, json=body(horizon=3)) as response,
    ):
        lines = response.aiter_lines()
        assert await anext(lines) == ": heartbeat"
        for step in range(2):
            engine.allow(1)
            while not (line := await anext(lines)).startswith("data"):
                pass
            assert json.loads(line.removeprefix("data: "))["step"] == step
            assert engine.runs[0].steps == 2 - step  # of three: no later one is taken
        engine.allow(1)
        rest = [line async for line in lines if line.startswith("event")]
    assert rest == ["event: candle", "event: done"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (body(horizon="2"), 422, "VALIDATION_ERROR"),
        (body(timestamps=["2025-03-03"]), 400, "INVALID_INPUT"),
        (body(), 500, "INTERNAL_ERROR"),
    ],
)
async def test_an_error_before_the_first_event_is_an_ordinary_response(
    request_: dict[str, Any], status: int, code: str
) -> None:
    def fail() -> None:
        raise RuntimeError

    async with serving(SleepyEngine(on_step=fail)) as client:
        response = await client.post(STREAM, json=request_)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"


async def test_a_refusal_costs_what_it_costs_at_single() -> None:
    settings = Settings(rate_limit_per_minute=2)
    loading = AsyncPredictor(lambda: threading.Event().wait(60))  # type: ignore[arg-type,return-value]
    async with client_of(create_app(settings, predictor=loading)) as client:
        refused = await client.post(STREAM, json=body())
    assert (refused.status_code, refused.headers["X-RateLimit-Remaining"]) == (503, "2")
    async with serving(rate_limit_per_minute=1) as client:
        first = await client.post(STREAM, json=body())
        second = await client.post(STREAM, json=body())
    assert (first.status_code, first.headers["X-RateLimit-Remaining"]) == (200, "0")
    assert (second.status_code, second.json()["error"]["code"]) == (429, "RATE_LIMITED")


async def test_an_error_after_the_first_event_is_an_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = SleepyEngine(steps=4)

    def fail() -> None:
        if engine.runs[0].steps == 2:
            raise RuntimeError("s3cr3t")

    engine.on_step = fail
    labels = {"endpoint": "stream", "status": "500"}
    before = value("kronos_prediction_latency_seconds_count", **labels)
    async with serving(engine) as client:
        response = await client.post(STREAM, json=body(horizon=4), headers={"X-Request-ID": "r"})
    *candles, (name, data) = events(response.text)
    assert [name for name, _ in candles] == ["candle"] * 2
    assert (response.status_code, name) == (200, "error")
    assert data["error"]["code"] == "INTERNAL_ERROR"
    assert data["error"]["request_id"] == "r"
    assert "s3cr3t" not in response.text
    assert value("kronos_prediction_latency_seconds_count", **labels) == before + 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    logged = next(line for line in lines if line["event"] == "request")
    assert (logged["status"], logged["code"]) == (200, "INTERNAL_ERROR")
    assert (logged["series_id"], logged["horizon"]) == ("a", 4)


async def test_candles_that_cannot_be_decoded_fail_their_own_stream_alone() -> None:
    class Broken(FakeCandleDecoder):
        def decode(self, sequence: Sequence) -> NDArray[np.float32]:
            raise RuntimeError(str(self.backlog(sequence)))

    class BrokenEngine(SleepyEngine):
        def candle_decoder(self, request: ForecastRequest) -> FakeCandleDecoder:
            return Broken() if request.horizon == 5 else FakeCandleDecoder()

    async with serving(BrokenEngine()) as client:
        requests = [(STREAM, body(horizon=5)), (STREAM, body(horizon=4)), (SINGLE, body(horizon=5))]
        asked = [client.post(path, json=request) for path, request in requests]
        broken, *others = await asyncio.gather(*asked)
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert [response.status_code for response in others] == [200, 200]
    assert events(others[0].text)[-1][0] == "done"


async def test_a_deadline_ends_a_stream_with_an_event() -> None:
    engine = GatedEngine(steps=512)
    engine.allow(2)
    async with serving(engine, request_timeout=1.0, inference_timeout=0.9) as client:
        response = await client.post(STREAM, json=body(horizon=512))
        engine.allow(512)
    *candles, (name, data) = events(response.text)
    assert [name for name, _ in candles] == ["candle"] * 2
    assert (response.status_code, name) == (200, "error")
    assert data["error"]["code"] == "PREDICTION_TIMEOUT"
    assert engine.runs[0].released


async def test_a_reader_that_leaves_frees_the_engine_within_one_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = {"endpoint": "stream", "status": "499"}
    before = value("kronos_prediction_latency_seconds_count", **labels)
    engine = GatedEngine(steps=100)
    async with served(engine) as (predictor, client):
        engine.allow(3)
        async with client.stream("POST", STREAM, json=body(horizon=100)) as response:
            await anext(response.aiter_lines())
        await until(
            lambda: value("kronos_prediction_latency_seconds_count", **labels) == before + 1
        )
        begun = engine.begun
        engine.allow(100)
        await until(lambda: predictor.active == 0)
        assert engine.begun == begun <= 4
    assert engine.runs[0].released
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [499]


async def test_a_reader_that_stalls_is_closed_and_holds_up_neither_engine_nor_others() -> None:
    levels = [n / 20 for n in range(1, 20)]
    content = encode(body(horizon=512, quantile_levels=levels, overrides={"sample_count": 2}))
    engine, before = SleepyEngine(steps=64), value("kronos_slow_callers_total", deadline="send")
    hasty = partial(
        SmallBuffers,
        deadlines=Deadlines(60, 60, 0.2, 60),
        max_body=2**20,
        limit=ConnectionLimit(9, 9),
        pace=Pace(),
    )
    async with served(engine, http=hasty) as (predictor, client):
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.connect((client.base_url.host, client.base_url.port))
            head = f"POST {STREAM} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            link.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await until(lambda: bool(engine.runs) and engine.runs[0].released)
            assert (await client.post(SINGLE, json=body())).status_code == 200
            await until(lambda: value("kronos_slow_callers_total", deadline="send") > before)
        await until(lambda: predictor.active == 0)


async def test_a_server_that_stops_finishes_its_streams() -> None:
    engine = GatedEngine(steps=5)

    async def read(client: httpx.AsyncClient) -> str:
        async with client.stream("POST", STREAM, json=body(horizon=5)) as response:
            return "".join([part async for part in response.aiter_text()])

    async with httpx.AsyncClient(timeout=60) as client:
        async with served(engine) as (predictor, base):
            client.base_url = base.base_url
            reading = asyncio.create_task(read(client))
            engine.allow(2)
            await until(lambda: engine.begun == 3)
            asyncio.get_running_loop().call_later(0.2, engine.allow, 5)
        assert predictor.state == "draining"
        assert [name for name, _ in events(await reading)] == ["candle"] * 5 + ["done"]


@pytest.mark.process
@needs_nginx
async def test_nginx_holds_no_event_back_and_passes_on_a_departure(tmp_path: Path) -> None:
    labels = {"endpoint": "stream", "status": "499"}
    before = value("kronos_prediction_latency_seconds_count", **labels)
    engine = GatedEngine(steps=9)
    async with AsyncExitStack() as held:
        predictor, direct = await held.enter_async_context(served(engine))
        proxy = held.enter_context(gateway(tmp_path, direct.base_url.port or 0))
        client = await held.enter_async_context(
            httpx.AsyncClient(base_url=proxy.url, verify=False, timeout=60)
        )
        engine.allow(1)
        compressed = {"Accept-Encoding": "gzip, zstd"}
        async with client.stream(
            "POST", STREAM, json=body(horizon=9), headers=compressed
        ) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert "content-encoding" not in response.headers
            lines = response.aiter_lines()
            for step in range(3):
                while not (line := await anext(lines)).startswith("data"):
                    pass
                assert json.loads(line.removeprefix("data: "))["step"] == step
                assert engine.runs[0].steps == 8 - step  # of nine: no later one is taken
                if step < 2:
                    engine.allow(1)
        await until(
            lambda: value("kronos_prediction_latency_seconds_count", **labels) == before + 1
        )
        engine.allow(9)
        await until(lambda: predictor.active == 0)
        assert engine.begun <= 4  # the step in progress was the last
