"""Liveness, readiness and health in detail."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.errors import StartupError
from kronos_api.predictor import AsyncPredictor
from kronos_api.schemas.status import Health
from tests.fakes import SleepyEngine
from tests.web import client_of, predicting, serving


@pytest.mark.parametrize("path", ["/health", "/v1/healthz"])
async def test_the_process_lives(path: str) -> None:
    async with serving() as client:
        response = await client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_ready() -> None:
    async with serving() as client:
        response = await client.get("/v1/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "model_loaded": True,
        "device": "cpu",
        "device_warning": None,
    }


async def not_ready(predictor: AsyncPredictor) -> tuple[httpx.Response, Health, httpx.Response]:
    async with client_of(create_app(Settings(), predictor=predictor)) as client:
        ready = await client.get("/v1/readyz")
        detailed = await client.get("/v1/healthz/detailed")
        models = await client.get("/v1/models")
        assert (await client.get("/health")).status_code == 200
    assert detailed.status_code == 200
    return ready, Health.model_validate_json(detailed.content), models


async def test_while_the_model_loads() -> None:
    release = threading.Event()

    def load() -> Any:
        release.wait()
        return SleepyEngine()

    predictor = AsyncPredictor(load)
    await predictor.start()
    try:
        ready, health, models = await not_ready(predictor)
    finally:
        release.set()
        await predictor.stop()
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "loading",
        "model_loaded": False,
        "device": None,
        "device_warning": None,
    }
    assert health.status == "degraded"
    assert health.checks.model.status == "loading"
    assert models.json()["error"]["code"] == "MODEL_NOT_READY"
    assert models.headers["Retry-After"] == "1"


async def test_when_the_model_cannot_be_loaded() -> None:
    def load() -> Any:
        raise StartupError("no such device")

    predictor = AsyncPredictor(load)
    await predictor.start()
    with pytest.raises(StartupError):
        await predictor.ready()
    ready, health, _ = await not_ready(predictor)
    await predictor.stop()
    assert (ready.status_code, ready.json()["status"]) == (503, "failed")
    assert health.checks.model.status == "failed"


async def test_while_draining() -> None:
    async with predicting() as predictor:
        predictor.drain()
        ready, health, models = await not_ready(predictor)
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert ready.json()["model_loaded"]
    assert health.checks.model.status == "draining"
    assert models.status_code == 200


async def test_health_in_detail() -> None:
    async with serving(max_queue=70) as client:
        health = Health.model_validate_json((await client.get("/v1/healthz/detailed")).content)
    assert health.checks.model.version == "fake/model@abc"
    assert health.checks.queue.model_dump() == {
        "status": "ok",
        "waiting": 0,
        "active": 0,
        "limit": 70,
    }
    memory, disk = health.checks.memory, health.checks.disk
    assert 0 < memory.process_mb < memory.system_total_mb
    assert 0 < disk.free_gb <= disk.total_gb
    assert 0 <= health.uptime_seconds < 60
    assert health.timestamp.endswith("+00:00")


async def test_full_memory_and_disk_are_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(percent=95.0, total=2**34, available=2**20, free=2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: full)
    monkeypatch.setattr(psutil, "disk_usage", lambda _: full)
    async with serving() as client:
        health = Health.model_validate_json((await client.get("/v1/healthz/detailed")).content)
    assert health.status == "degraded"
    assert health.checks.memory.status == health.checks.disk.status == "degraded"
