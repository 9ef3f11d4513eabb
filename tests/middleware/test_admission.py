"""The bound on requests in progress, from which probes are exempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.middleware.admission import Admission
from kronos_api.schemas.responses import ErrorResponse
from kronos_api.telemetry.metrics import metrics
from tests.fakes import SleepyEngine, stuck
from tests.web import JSON, SINGLE, body, encode, listening, predictor_of, serving, until

PROBES = ["/health", "/v1/healthz", "/v1/readyz", "/v1/healthz/detailed", "/metrics", "/v1/metrics"]


def refused() -> float:
    return metrics.registry.get_sample_value("kronos_admission_refusals_total") or 0


def asking() -> float:
    return metrics.registry.get_sample_value("kronos_concurrent_requests") or 0


@pytest.mark.parametrize("security", [True, False])
async def test_requests_beyond_the_limit_are_refused_and_probes_answered(
    security: bool,
) -> None:
    settings: dict[str, Any] = {"limit_concurrency": 3, "security_enabled": security}
    # Not even paths that the whitelist closes are exempt by that list.
    settings |= {"security_exempt_paths": "none"}
    engine = SleepyEngine()
    predictor = predictor_of(engine)
    before = refused()
    async with (
        listening(create_app(Settings(**settings), predictor=predictor)) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60, headers=JSON) as client,
        stuck(engine) as release,
    ):
        await until(lambda: predictor.state == "ready")
        asked = [asyncio.create_task(client.post(SINGLE, json=body())) for _ in range(3)]
        await until(lambda: predictor.active + predictor.queue_depth == 3, 30)
        for path in (SINGLE, "/v1/models", "/nowhere"):
            answer = await client.post(path, json=body())
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert "X-RateLimit-Remaining" not in answer.headers  # no quota is charged
            error = ErrorResponse.model_validate_json(answer.content).error
            assert (error.code, error.request_id) == ("QUEUE_FULL", answer.headers["X-Request-ID"])
        assert refused() == before + 3
        for path in PROBES:
            assert (await client.get(path)).status_code == 200, path
        release.set()
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3
        answer = await client.post(SINGLE, json=body())
        assert (answer.status_code, "X-RateLimit-Remaining" in answer.headers) == (200, True)


async def test_disconnected_client_frees_its_place() -> None:
    engine = SleepyEngine()
    predictor = predictor_of(engine)
    settings = Settings(limit_concurrency=1)
    async with (
        listening(create_app(settings, predictor=predictor)) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60, headers=JSON) as client,
        stuck(engine),
    ):
        await until(lambda: predictor.state == "ready")
        asked = asyncio.create_task(client.post(SINGLE, json=body()))
        await until(lambda: predictor.active == 1, 30)
        assert (await client.get("/v1/models")).status_code == 503
        asked.cancel()
        while (await client.get("/v1/models")).status_code == 503:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("declared", [True, False])
async def test_unfinished_body_takes_no_place(declared: bool) -> None:
    content = encode(body())
    headers = {"Content-Length": str(len(content))} if declared else {}
    more = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield content[:10]
        yield content[10:20]
        await more.wait()
        yield content[20:]

    async def code(asked: Awaitable[httpx.Response]) -> str | None:
        answer = await asked
        refusal = answer.json().get("error")
        assert answer.headers.get("Retry-After") == ("1" if refusal else None)
        return refusal and ErrorResponse.model_validate(answer.json()).error.code

    engine = SleepyEngine()
    predictor = predictor_of(engine)
    # While the limit is asked for a request, it is in progress.
    settings = Settings(limit_concurrency=2, rate_limit_enabled=False)
    before, others = refused(), asking()
    async with (
        listening(create_app(settings, predictor=predictor)) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60, headers=JSON) as client,
        stuck(engine) as release,
    ):
        await until(lambda: predictor.state == "ready")
        slow = [
            asyncio.create_task(client.post(SINGLE, content=slowly(), headers=headers))
            for _ in range(6)
        ]
        await until(lambda: asking() == others + 6)
        asked = [asyncio.create_task(client.post(SINGLE, json=body())) for _ in range(2)]
        await until(lambda: predictor.active + predictor.queue_depth == 2, 30)
        # All places are taken: for new requests, and for those whose bodies arrive.
        assert await code(client.post(SINGLE, json=body())) == "QUEUE_FULL"
        slow.pop().cancel()
        await until(lambda: asking() == others + 7)
        more.set()
        assert [await code(one) for one in slow] == ["QUEUE_FULL"] * 5
        assert refused() == before + 6
        release.set()
        assert [await code(one) for one in asked] == [None] * 2
        # Every place that was left has been given back, and none more than once.
        release.clear()
        asked = [asyncio.create_task(client.post(SINGLE, json=body())) for _ in range(2)]
        await until(lambda: predictor.active + predictor.queue_depth == 2, 30)
        assert await code(client.post(SINGLE, json=body())) == "QUEUE_FULL"
        release.set()
        assert [await code(one) for one in asked] == [None] * 2
        assert await code(client.post(SINGLE, content=slowly(), headers=headers)) is None


async def test_deadline_within_a_body_frees_no_place() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            with suppress(TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
        else:
            await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def never() -> Message:
        forever: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await forever

    async def ask(path: str) -> int:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Scope = {"type": "http", "path": path, "headers": []}
        await admission(scope, never, send)
        return int(sent[0]["status"])

    release = asyncio.Event()
    admission = Admission(app, limit=1)
    assert await ask("/slow") == 200
    asked = asyncio.create_task(ask("/other"))
    await asyncio.sleep(0)
    assert await ask("/other") == 503
    release.set()
    assert await asked == 200


async def test_unlisted_callers_take_no_place() -> None:
    """They get 403, not 503, and no refusal is counted."""
    before = refused()
    async with serving(limit_concurrency=1, container_whitelist="10.1.2.3") as client:
        answers = await asyncio.gather(*(client.post(SINGLE, json=body()) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {403}
    assert refused() == before
