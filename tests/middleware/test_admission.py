"""The bound on requests in progress, from which probes are exempt."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.schemas.responses import ErrorResponse
from kronos_api.telemetry.metrics import REGISTRY
from tests.fakes import SleepyEngine, stuck
from tests.web import SINGLE, body, listening, predictor_of, serving, until

PROBES = ["/health", "/v1/healthz", "/v1/readyz", "/v1/healthz/detailed", "/metrics", "/v1/metrics"]


def refused() -> float:
    return REGISTRY.get_sample_value("kronos_admission_refusals_total") or 0


@pytest.mark.parametrize("security", [True, False])
async def test_beyond_the_bound_requests_are_refused_and_probes_answered(
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
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client,
        stuck(engine) as release,
    ):
        await until(lambda: predictor.state == "ready")
        asked = [asyncio.create_task(client.post(SINGLE, json=body())) for _ in range(3)]
        await until(lambda: predictor.active + predictor.queue_depth == 3, 30)
        for path in (SINGLE, "/v1/models", "/nowhere"):
            answer = await client.post(path, json=body())
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert "X-RateLimit-Remaining" not in answer.headers  # nobody is charged for this
            error = ErrorResponse.model_validate_json(answer.content).error
            assert (error.code, error.request_id) == ("QUEUE_FULL", answer.headers["X-Request-ID"])
        assert refused() == before + 3
        for path in PROBES:
            assert (await client.get(path)).status_code == 200, path
        release.set()
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3
        answer = await client.post(SINGLE, json=body())
        assert (answer.status_code, "X-RateLimit-Remaining" in answer.headers) == (200, True)


async def test_whoever_leaves_makes_room() -> None:
    engine = SleepyEngine()
    predictor = predictor_of(engine)
    settings = Settings(limit_concurrency=1)
    async with (
        listening(create_app(settings, predictor=predictor)) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client,
        stuck(engine),
    ):
        await until(lambda: predictor.state == "ready")
        asked = asyncio.create_task(client.post(SINGLE, json=body()))
        await until(lambda: predictor.active == 1, 30)
        assert (await client.get("/v1/models")).status_code == 503
        asked.cancel()
        while (await client.get("/v1/models")).status_code == 503:
            await asyncio.sleep(0.05)


async def test_strangers_take_no_place() -> None:
    """They are refused as strangers, not for want of room, and nothing is counted."""
    before = refused()
    async with serving(limit_concurrency=1, container_whitelist="10.1.2.3") as client:
        answers = await asyncio.gather(*(client.post(SINGLE, json=body()) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {403}
    assert refused() == before
