"""A service that answers by a script, a clock that sleeping moves on, and frames of candles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import httpx
import pandas as pd

from kronos_api_client import AsyncKronosClient, CandleEvent, Forecast, KronosClient

Kind = Literal["sync", "async"]
Reply = httpx.Response | Exception
FIELDS = ("open", "high", "low", "close", "volume", "amount")


def history(rows: int = 4, **index: Any) -> pd.DataFrame:
    """Candles of 15 minutes, or by other arguments of `pandas.date_range`."""
    arguments: dict[str, Any] = {
        "start": "2025-03-03 09:00",
        "periods": rows,
        "freq": "15min",
    } | index
    times = pd.date_range(**arguments)
    columns = {"open": 100.0, "high": 102.0, "low": 99.0, "close": 101.0, "volume": 10.0}
    return pd.DataFrame(columns, index=times)


def long_history(ids: Iterable[Any], rows: int = 3) -> pd.DataFrame:
    """The same for many series, one after another."""
    frames = [history(rows).assign(series_id=each) for each in ids]
    return pd.concat(frames)


def forecast(request: dict[str, Any]) -> dict[str, Any]:
    """A response that repeats the last close, with steps of `freq` in days, else 15 minutes."""
    last = request["timestamps"][-1]
    steps = request.get("horizon", 0)
    step = timedelta(days=1) if request.get("freq") == "1D" else timedelta(minutes=15)
    after = datetime.fromisoformat(last)
    texts = [_like(last, after + step * (number + 1)) for number in range(steps)]
    texts = request.get("prediction_timestamps", texts)
    values = dict.fromkeys(FIELDS, request["candles"]["close"][-1])
    arrays = {name: [value] * len(texts) for name, value in values.items()}
    response = {
        "series_id": request.get("series_id"),
        "prediction": [{"timestamp": text, **values} for text in texts],
        "seed": 7,
        "context_used": len(request["timestamps"]),
        "repaired": 0,
        "warnings": [{"code": "DEMO_MODEL", "message": "Not for trading."}],
        "model_version": "demo@1",
        "tokenizer_version": "demo@2",
        "timings_ms": {"queue": 0.1, "inference": 0.2, "total": 0.3},
        "demo": True,
    }
    if levels := request.get("quantile_levels"):
        response["quantiles"] = {str(level): arrays for level in levels}
    if request.get("summary"):
        response["summary"] = {
            **dict.fromkeys(("p_up", "expected_return", "volatility"), [0.5] * len(texts)),
            "var_95": 0.02,
            "es_95": 0.03,
            "max_drawdown": {"median": 0.01, "p95": 0.04},
            "p_touch": [
                {"level": level, "probability": 0.25} for level in request.get("levels", ())
            ],
        }
    if request.get("return_samples"):
        response["samples"] = [arrays, arrays]
    return response


def _like(example: str, time: datetime) -> str:
    return time.isoformat() if len(example) > len("2025-06-02") else time.date().isoformat()


def answer(request: httpx.Request, **headers: str) -> httpx.Response:
    """The response to a single or a batch request."""
    body = json.loads(request.content)
    content: Any = [forecast(item) for item in body["items"]] if "items" in body else forecast(body)
    return httpx.Response(200, json=content, headers=headers)


def refusal(
    status: int, code: str, details: Iterable[dict[str, Any]] = (), **headers: str
) -> httpx.Response:
    """An error as the service writes it; header names have underscores for hyphens."""
    error = {"code": code, "message": "No.", "details": list(details), "request_id": "r-1"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": error}, headers=named)


def event(name: str, data: Any) -> str:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def stream_of(request: httpx.Request, *, cut: bool = False) -> httpx.Response:
    """A stream with heartbeats; `cut`: without its last event."""
    whole = forecast(json.loads(request.content))
    parts = [": heartbeat\n\n"]
    for step, candle in enumerate(whole["prediction"]):
        quantiles = {
            level: {name: column[step] for name, column in arrays.items()}
            for level, arrays in whole.get("quantiles", {}).items()
        }
        data = candle | {"step": step} | ({"quantiles": quantiles} if quantiles else {})
        parts.append(event("candle", data))
    if not cut:
        parts.append(event("done", whole))
    return events(*parts)


def events(*parts: str) -> httpx.Response:
    """A response with events."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Request-ID": "r-2"}
    return httpx.Response(200, content="".join(parts).encode(), headers=headers)


@dataclass
class Clock:
    """Time that passes by sleeping alone."""

    time: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@dataclass
class Service:
    """Answers by `script`, then well; keeps the requests."""

    script: list[Reply] = field(default_factory=list)
    respond: Callable[[httpx.Request], httpx.Response] = answer
    clock: Clock = field(default_factory=Clock)
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self.script.pop(0) if self.script else self.respond(request)
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def bodies(self) -> list[Any]:
        """The JSON of each request."""
        return [json.loads(request.content) for request in self.requests]

    def stream(
        self, kind: Kind, *args: Any, max_wait: float = 60, **options: Any
    ) -> tuple[list[CandleEvent], Forecast[pd.DataFrame]]:
        """The candles and the result of a stream."""
        common: dict[str, Any] = {"transport": httpx.MockTransport(self), "max_wait": max_wait}
        common["now"] = self.clock.now
        if kind == "sync":
            with KronosClient("http://service", sleep=self.clock.sleep, **common) as client:
                stream = client.stream(*args, **options)
                return list(stream), stream.result

        async def read() -> tuple[list[CandleEvent], Forecast[pd.DataFrame]]:
            sleep = self.clock.sleep_async
            async with AsyncKronosClient("http://service", sleep=sleep, **common) as client:
                stream = client.stream(*args, **options)
                return [candle async for candle in stream], stream.result

        return asyncio.run(read())

    def call(
        self, kind: Kind, method: str, *args: Any, max_wait: float = 60, **options: Any
    ) -> Any:
        """What `method` of the synchronous or asynchronous client returns."""
        transport = httpx.MockTransport(self)
        common: dict[str, Any] = {"transport": transport, "max_wait": max_wait}
        common["now"] = self.clock.now
        if kind == "sync":
            with KronosClient("http://service", sleep=self.clock.sleep, **common) as client:
                return getattr(client, method)(*args, **options)

        async def call() -> Any:
            sleep = self.clock.sleep_async
            async with AsyncKronosClient("http://service", sleep=sleep, **common) as client:
                return await getattr(client, method)(*args, **options)

        return asyncio.run(call())
