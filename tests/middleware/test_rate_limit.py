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
from kronos_api.ratelimit.charge import charge_series
from kronos_api.ratelimit.host_store import HostStore
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.quotas import Quotas
from kronos_api.schemas.responses import ErrorResponse
from kronos_api.schemas.status import Health
from kronos_api.telemetry.metrics import metrics
from tests.middleware.test_caller_identity import routes
from tests.web import BATCH, SINGLE, body, client_of, predictor_of, serving

ROUTES = sorted({path.replace("{name}", "model") for _, path in routes()})
PREDICT = [path for path in ROUTES if path.startswith(PREFIX)]
UNLIMITED = ["/v1/healthz", "/health", "/v1/readyz", "/v1/metrics", "/metrics"]
UNLIMITED += ["/v2/health/live", "/v2/health/ready"]
"""Polled by what watches the service."""
OTHERS = sorted(set(ROUTES) - set(PREDICT) - set(UNLIMITED))


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
    found = [s for family in metrics.registry.collect() for s in family.samples if s.name == name]
    return sum(sample.value for sample in found)


def charged() -> float:
    """Forecasts charged, over all callers."""
    name = "kronos_rate_limit_charged_total"
    found = [s for family in metrics.registry.collect() for s in family.samples if s.name == name]
    return sum(sample.value for sample in found)


def quota(response: httpx.Response) -> tuple[str, ...]:
    names = ("Limit", "Remaining", "Reset")
    return tuple(response.headers.get(f"X-RateLimit-{name}", "") for name in names)


def batch(items: int) -> dict[str, Any]:
    return {"items": [body()] * items}


async def test_limit_is_exact() -> None:
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
async def test_paths_without_a_route_count(method: str, path: str) -> None:
    async with serving(rate_limit_per_minute=1) as client:
        assert (await client.post(SINGLE, json=body())).status_code == 200
        assert (await client.request(method, path)).status_code == 429


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_safe_methods_are_not_counted(method: str) -> None:
    """A web page can have a browser send them from anywhere, as those of an image."""
    async with serving(rate_limit_per_minute=1) as client:
        assert (await client.request(method, SINGLE)).status_code == 405
        assert (await client.post(SINGLE, json=body())).status_code == 200


@pytest.mark.parametrize("path", OTHERS + UNLIMITED)
async def test_the_limit_of_forecasts_holds_for_them_alone(path: str) -> None:
    async with serving(rate_limit_per_minute=1) as client:
        await client.post(SINGLE)
        response = await client.get(path)
    assert response.status_code == 200
    assert quota(response)[0] == ("" if path in UNLIMITED else "300")


def test_every_route_is_a_forecast_a_probe_or_limited_otherwise() -> None:
    assert set(PREDICT) | set(OTHERS) | set(UNLIMITED) == set(ROUTES)
    assert {"/", "/v1/models", "/docs", "/redoc", "/openapi.json"} <= set(OTHERS)


@pytest.mark.parametrize("path", OTHERS)
async def test_every_route_but_probes_and_forecasts_has_the_other_limit(path: str) -> None:
    before = hits()
    async with serving(rate_limit_other_per_minute=2) as client:
        responses = [await client.get(path) for _ in range(4)]
        forecast = await client.post(SINGLE, json=body())
    assert [response.status_code for response in responses] == [200, 200, 429, 429]
    assert [quota(response)[:2] for response in responses] == [
        ("2", "1"), ("2", "0"), ("2", "0"), ("2", "0")
    ]  # fmt: skip
    assert all("Retry-After" not in response.headers for response in responses[:2])
    refused = responses[-1]
    error = ErrorResponse.model_validate_json(refused.content).error
    assert error.code == "RATE_LIMITED"
    assert "KRONOS_RATE_LIMIT_OTHER_PER_MINUTE" in error.message
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert 0 < int(quota(refused)[2]) - time.time() <= 61
    assert hits() == before + 2
    assert forecast.status_code == 200


async def test_other_routes_share_one_limit_and_head_counts() -> None:
    async with serving(rate_limit_other_per_minute=2) as client:
        statuses = [
            (await client.head("/docs")).status_code,
            (await client.get("/v1/models")).status_code,
            (await client.get("/")).status_code,
        ]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize("path", UNLIMITED)
async def test_probes_and_metrics_are_not_limited(path: str) -> None:
    async with serving(rate_limit_per_minute=1, rate_limit_other_per_minute=1) as client:
        responses = [await client.get(path) for _ in range(3)]
    assert {response.status_code for response in responses} == {200}
    assert quota(responses[0]) == ("", "", "")


async def test_the_variables_of_slowapi_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELIMIT_ENABLED", "false")
    async with serving(rate_limit_other_per_minute=1) as client:
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]


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
            "Rate limit: the request counts as 6, of which 1 is charged, and 3 of 10 forecasts per "
            "minute are left. Retry in 59 s, ask for fewer series, sample paths or steps, or raise "
            "KRONOS_RATE_LIMIT_PER_MINUTE."
        )
        assert int(large.headers["Retry-After"]) == 59
        # Of the batch only the request itself was counted: what is left can be used.
        last = await client.post(BATCH, json=batch(3))
        assert (last.status_code, quota(last)[1]) == (200, "0")
    assert hits() == before + 1


@pytest.mark.parametrize(("status", "left"), [(200, "7"), (400, "7"), (503, "10"), (504, "7")])
async def test_a_forecast_that_is_refused_with_503_costs_nothing(
    tmp_path: Path, status: int, left: str
) -> None:
    """The gateway tries it at another replica, which charges for it as well."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await charge_series(scope, [1, 1, 1])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    limiter = Limiter(Quotas(10, {}), HostStore(tmp_path))
    await limiter.start()
    before = charged()
    async with client_of(RateLimit(app, limiter=limiter)) as client:
        for _ in range(3 if status == 503 else 1):
            assert quota(await client.post(SINGLE))[:2] == ("10", left)
    assert charged() == before + 10 - int(left)
    await limiter.stop()


async def test_a_forecast_whose_caller_left_is_counted_as_charged(tmp_path: Path) -> None:
    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        await charge_series(scope, [1, 1, 1])

    limiter = Limiter(Quotas(10, {}), HostStore(tmp_path))
    await limiter.start()
    before = charged()
    async with client_of(RateLimit(app, limiter=limiter)) as client:
        with pytest.raises(AssertionError):  # httpx has no response
            await client.post(SINGLE)
    assert charged() == before + 3
    await limiter.stop()


async def test_batch_beyond_the_quota_is_invalid_input() -> None:
    async with serving(rate_limit_per_minute=10, rate_limits="batch=5/hour") as client:
        response = await client.post(BATCH, json=batch(6))
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message.startswith("items must be at most 5 long (the rate limit: ")


async def test_batch_can_count_as_one() -> None:
    async with serving(rate_limit_per_minute=2, rate_limit_batch="request") as client:
        responses = [await client.post(BATCH, json=batch(6)) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]


async def test_decode_steps_can_count() -> None:
    large = body(horizon=512, overrides={"sample_count": 64})
    async with serving(rate_limit_per_minute=40, rate_limit_batch="decode_steps") as client:
        responses = [await client.post(SINGLE, json=one) for one in (body(), large, large)]
        pair = await client.post(BATCH, json={"items": [body(), body()]})
    assert [(one.status_code, quota(one)[1]) for one in (*responses, pair)] == [
        (200, "39"), (200, "7"), (429, "6"), (200, "4")
    ]  # fmt: skip
    message = responses[2].json()["error"]["message"]
    assert "counts as 32, of which 1 is charged, and 6 of 40 forecasts per minute" in message


async def test_decode_steps_beyond_the_quota_are_invalid_input() -> None:
    large = body(horizon=512, overrides={"sample_count": 64})
    async with serving(rate_limit_per_minute=31, rate_limit_batch="decode_steps") as client:
        response = await client.post(SINGLE, json=large)
    assert response.status_code == 400
    assert "counts as 32 forecasts" in response.json()["error"]["message"]


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
    """The status for a caller at `client`, or for the one that identity found."""
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


async def test_caller_is_the_identified_one(tmp_path: Path) -> None:
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
    assert metrics.registry.get_sample_value("kronos_rate_limit_hits_total", labels) == 1
    await limiter.stop()


async def test_health_reports_the_store() -> None:
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


async def test_health_reports_an_unavailable_redis() -> None:
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


def test_quota_of_unknown_route_stops_the_start() -> None:
    with pytest.raises(StartupError, match="KRONOS_RATE_LIMITS: there is no route 'stram'"):
        create_app(Settings(rate_limits="stram=1/second"), predictor=predictor_of())
