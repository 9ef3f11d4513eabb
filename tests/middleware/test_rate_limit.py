"""The rate limit as callers meet it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.errors import StartupError
from kronos_api.middleware.rate_limit import PREFIX, RateLimit
from kronos_api.ratelimit.host import HostStore
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.quotas import Quotas
from kronos_api.schemas.responses import ErrorResponse, Health
from kronos_api.telemetry.metrics import REGISTRY
from tests.web import BATCH, SINGLE, body, predictor_of, serving

PATHS = list(create_app(Settings(), predictor=predictor_of()).openapi()["paths"])
PREDICT = [path for path in PATHS if path.startswith(PREFIX)]


@pytest.fixture(autouse=True)
def minute(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No minute ends within a test."""
    began = time.time() // 60 * 60 + 1
    monkeypatch.setattr(time, "time", lambda: began)
    yield
    monkeypatch.undo()


def hits() -> float:
    """Over all callers; tests are one of them."""
    name = "kronos_rate_limit_hits_total"
    found = [s for family in REGISTRY.collect() for s in family.samples if s.name == name]
    return sum(sample.value for sample in found)


def quota(response: httpx.Response) -> tuple[str, ...]:
    names = ("Limit", "Remaining", "Reset")
    return tuple(response.headers.get(f"X-RateLimit-{name}", "") for name in names)


def batch(items: int) -> dict[str, Any]:
    return {"items": [body()] * items}


async def test_the_limit_is_exact_and_told() -> None:
    before = hits()
    async with serving(rate_limit_per_minute=3) as client:
        responses = [await client.post(SINGLE, json=body()) for _ in range(5)]
    assert [response.status_code for response in responses] == [200] * 3 + [429] * 2
    reset = str(int(time.time() // 60 * 60 + 60))
    left = ["2", "1", "0", "0", "0"]
    assert [quota(response) for response in responses] == [("3", one, reset) for one in left]
    refused = responses[-1]
    error = ErrorResponse.model_validate_json(refused.content).error
    assert error.code == "RATE_LIMITED"
    assert error.request_id == refused.headers["X-Request-ID"]
    assert refused.headers["Retry-After"] == "59"
    assert "Retry-After" not in responses[0].headers
    assert hits() == before + 2


async def test_calls_at_the_same_time_are_counted_one_by_one() -> None:
    async with serving(rate_limit_per_minute=20) as client:
        responses = await asyncio.gather(*(client.post(SINGLE, json=body()) for _ in range(50)))
    statuses = [response.status_code for response in responses]
    assert (statuses.count(200), statuses.count(429)) == (20, 30)


@pytest.mark.parametrize("path", PREDICT)
async def test_every_predict_route_is_limited(path: str) -> None:
    async with serving(rate_limit_per_minute=1) as client:
        await client.post(path)
        response = await client.post(path)
    assert response.status_code == 429


def test_there_are_predict_routes() -> None:
    assert {SINGLE, BATCH} <= set(PREDICT)


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", SINGLE), ("POST", "/v1/predict/none"), ("POST", "/x/v1/predict/single")],
)
async def test_what_only_looks_like_a_forecast_counts_too(method: str, path: str) -> None:
    async with serving(rate_limit_per_minute=1) as client:
        assert (await client.post(SINGLE, json=body())).status_code == 200
        assert (await client.request(method, path)).status_code == 429


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_safe_methods_are_not_counted(method: str) -> None:
    """A web page can have a browser send them from anywhere, as those of an image."""
    async with serving(rate_limit_per_minute=1) as client:
        assert (await client.request(method, SINGLE)).status_code == 405
        assert (await client.post(SINGLE, json=body())).status_code == 200


@pytest.mark.parametrize("path", sorted(set(PATHS) - set(PREDICT)))
async def test_other_routes_are_not_limited(path: str) -> None:
    async with serving(rate_limit_per_minute=1) as client:
        await client.post(SINGLE)
        response = await client.get(path)
    assert response.status_code == 200
    assert quota(response) == ("", "", "")


async def test_a_refusal_reads_no_body() -> None:
    async def endless() -> Any:
        raise AssertionError("the body was read")
        yield b""

    async with serving(rate_limit_per_minute=1) as client:
        await client.post(SINGLE)
        headers = {"Content-Length": "10"}
        response = await client.post(SINGLE, content=endless(), headers=headers)
    assert response.status_code == 429


async def test_bad_requests_count_as_well() -> None:
    async with serving(rate_limit_per_minute=2, max_request_size_mb=1 / 1024) as client:
        assert (await client.post(SINGLE, content=b"{")).status_code == 400
        large = await client.post(SINGLE, content=b" " * 2000)
        assert (large.status_code, quota(large)[1]) == (413, "0")
        assert (await client.post(SINGLE, json=body())).status_code == 429


async def test_the_items_of_a_batch_count() -> None:
    before = hits()
    async with serving(rate_limit_per_minute=10) as client:
        first = await client.post(BATCH, json=batch(6))
        assert (first.status_code, quota(first)[1]) == (200, "4")
        large = await client.post(BATCH, json=batch(6))
        assert (large.status_code, quota(large)[1]) == (429, "3")
        assert large.json()["error"]["message"] == (
            "The caller's limit leaves no room for a batch of 6 series."
        )
        assert int(large.headers["Retry-After"]) == 59
        # Of the batch only the request itself was counted: what is left can be used.
        last = await client.post(BATCH, json=batch(3))
        assert (last.status_code, quota(last)[1]) == (200, "0")
    assert hits() == before + 1


async def test_a_batch_that_could_never_pass_is_bad_input() -> None:
    async with serving(rate_limit_per_minute=10, rate_limits="batch=5/hour") as client:
        response = await client.post(BATCH, json=batch(6))
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "items must be at most 5 long."


async def test_a_batch_may_count_as_one() -> None:
    async with serving(rate_limit_per_minute=2, rate_limit_batch="request") as client:
        responses = [await client.post(BATCH, json=batch(6)) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]


async def test_a_route_has_limits_of_its_own() -> None:
    async with serving(rate_limit_per_minute=100, rate_limits="batch=4/hour") as client:
        batches = [await client.post(BATCH, json=batch(2)) for _ in range(3)]
        single = await client.post(SINGLE, json=body())
    assert [response.status_code for response in batches] == [200, 200, 429]
    assert quota(batches[2])[:2] == ("4", "0")
    assert (single.status_code, quota(single)[:2]) == (200, ("100", "95"))


async def test_the_limit_can_be_off() -> None:
    async with serving(rate_limit_enabled=False, rate_limit_per_minute=1) as client:
        responses = [await client.post(BATCH, json=batch(2)) for _ in range(3)]
        health = Health.model_validate_json((await client.get("/v1/healthz/detailed")).content)
    assert {response.status_code for response in responses} == {200}
    assert quota(responses[0]) == ("", "", "")
    assert health.checks.rate_limit_store.status == "off"


async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(app: RateLimit, client: str | None, **state: Any) -> int:
    """The status for a caller at `client`, or as identity has settled it."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    peer = client and (client, 1234)
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": SINGLE,
        "headers": [],
        "state": state,
        "client": peer,
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


async def test_callers_are_who_identity_says(tmp_path: Path) -> None:
    limiter = Limiter(Quotas(1), HostStore(tmp_path))
    app = RateLimit(answer, limiter=limiter)
    web = SimpleNamespace(key="web-1", label="web")
    assert await ask(app, "10.0.0.1", caller=web) == 200
    assert await ask(app, "10.0.0.2", caller=web) == 429  # the same, wherever it calls from
    assert await ask(app, "10.0.0.1") == 200
    assert await ask(app, "10.0.0.1") == 429
    assert await ask(app, "10.0.0.3") == 200
    assert await ask(app, None) == 200
    assert await ask(app, None) == 429
    labels = {"container": "web"}
    assert REGISTRY.get_sample_value("kronos_rate_limit_hits_total", labels) == 1
    await limiter.stop()


async def test_health_tells_of_the_store() -> None:
    async with serving(workers=4, rate_limit_per_minute=100) as client:
        health = Health.model_validate_json((await client.get("/v1/healthz/detailed")).content)
        ready = (await client.get("/v1/readyz")).json()
    assert health.checks.rate_limit_store.model_dump() == {
        "status": "ok",
        "store": "host",
        "limit_per_minute": 100,
        "share_per_minute": 25,
    }
    assert "rate_limit_store" not in ready


async def test_health_tells_that_redis_is_away() -> None:
    async with serving(
        workers=2, rate_limit_per_minute=100, redis_url="redis://127.0.0.1:1"
    ) as client:
        await client.post(SINGLE)
        detailed = await client.get("/v1/healthz/detailed")
        ready = await client.get("/v1/readyz")
    health = Health.model_validate_json(detailed.content)
    assert (health.status, health.checks.rate_limit_store.status) == ("degraded", "degraded")
    assert health.checks.rate_limit_store.share_per_minute == 50
    assert ready.json()["rate_limit_store"] == "degraded"


def test_limits_of_no_route_stop_the_start() -> None:
    with pytest.raises(StartupError, match="KRONOS_RATE_LIMITS: 'stram' is none of the routes"):
        create_app(Settings(rate_limits="stram=1/second"), predictor=predictor_of())
