"""Helpers for tests of the HTTP layer: bodies, and the service around a fake engine."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import numpy as np
import uvicorn
from starlette.types import ASGIApp

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.engine.engine import Engine
from kronos_api.predictor import AsyncPredictor
from kronos_api.server.server import Server
from tests.fakes import SleepyEngine

SINGLE = "/v1/predict/single"
BATCH = "/v1/predict/batch"
STREAM = "/v1/predict/stream"
JSON = {"Content-Type": "application/json"}
START = datetime(2025, 3, 3, 9)


def candles(rows: int) -> list[dict[str, float]]:
    """A random walk of valid candles."""
    numbers = np.random.default_rng(rows)
    path = 100 * np.exp(numbers.normal(0, 0.01, (rows, 4)).cumsum(axis=0))
    return [
        {
            "open": float(o),
            "high": float(max(o, h, low, c)),
            "low": float(min(o, h, low, c)),
            "close": float(c),
            "volume": 10.0 + n,
        }
        for n, (o, h, low, c) in enumerate(path)
    ]


def stamps(rows: int, start: datetime = START, zone: str = "Z", minutes: int = 15) -> list[str]:
    """`rows` stamps in ISO 8601."""
    return [
        f"{start + timedelta(minutes=minutes * n):%Y-%m-%dT%H:%M:%S}{zone}" for n in range(rows)
    ]


def body(rows: int = 4, **changes: Any) -> dict[str, Any]:
    """A valid request with `changes`; a change to None removes the key."""
    whole = {"series_id": "a", "candles": candles(rows), "timestamps": stamps(rows), "horizon": 2}
    return {name: value for name, value in (whole | changes).items() if value is not None}


def columns(rows: int = 4) -> dict[str, list[float]]:
    """`candles` as columns."""
    listed = candles(rows)
    return {name: [candle[name] for candle in listed] for name in listed[0]}


def events(text: str) -> list[tuple[str, Any]]:
    """Name and data of each server-sent event in `text`, without heartbeats."""
    blocks = [block for block in text.strip().split("\n\n") if not block.startswith(":")]
    pairs = [block.split("\n") for block in blocks]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in pairs
    ]


def with_candle(index: int, **changes: Any) -> dict[str, Any]:
    """A request of four candles of which one has `changes`."""
    listed: list[dict[str, Any]] = [dict(candle) for candle in candles(4)]
    listed[index] |= changes
    return body(candles=listed)


def encode(value: Any) -> bytes:
    """JSON, in which "@text" stands for text that is not quoted: numbers Python cannot hold."""
    parts = json.dumps(value).split('"@')
    return "".join([parts[0], *("".join(part.split('"', 1)) for part in parts[1:])]).encode()


def predictor_of(engine: Engine | None = None, **options: Any) -> AsyncPredictor:
    """A predictor that is not started."""
    return AsyncPredictor(lambda: engine or SleepyEngine(), **options)


@asynccontextmanager
async def predicting(engine: Engine | None = None, **options: Any) -> AsyncIterator[AsyncPredictor]:
    """A predictor that is ready."""
    predictor = predictor_of(engine, **options)
    await predictor.start()
    await predictor.ready()
    try:
        yield predictor
    finally:
        await predictor.stop()


@asynccontextmanager
async def serving(
    engine: Engine | None = None, workers: Any = 1, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service in this process, as one of `workers`."""
    # Tests that are not about the limit may ask as often as they like.
    chosen = Settings(**{"rate_limit_per_minute": 10_000_000} | settings)
    options = {"max_queue": chosen.max_queue, "inference_timeout": chosen.inference_timeout}
    async with (
        predicting(engine, **options) as predictor,
        client_of(create_app(chosen, predictor=predictor, workers=workers)) as client,
    ):
        yield client


@asynccontextmanager
async def client_of(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` without a network, which gets a 500 for an unhandled exception."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://service", headers=JSON
    ) as client:
        yield client


@asynccontextmanager
async def listening(
    app: ASGIApp, make: type[uvicorn.Server] = Server, **options: Any
) -> AsyncIterator[tuple[str, int]]:
    """The address at which a real server serves `app`, its start and stop included.

    `options` are uvicorn's.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address: tuple[str, int] = listener.getsockname()
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "on"}
        config = uvicorn.Config(app, **(quiet | options))
        server = make(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        try:
            yield address
        finally:
            server.should_exit = True
            await task


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until `holds()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.01)
