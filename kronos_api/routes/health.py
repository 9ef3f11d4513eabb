"""Whether the process lives, whether it takes forecasts, and how it fares."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Final, Literal

import psutil
from fastapi import APIRouter, Response

from kronos_api.predictor import AsyncPredictor
from kronos_api.schemas.responses import (
    Checks,
    DiskCheck,
    Health,
    MemoryCheck,
    ModelCheck,
    QueueCheck,
    Readiness,
    Status,
)
from kronos_api.schemas.writing import version

FULL_PERCENT: Final = 90.0
"""Memory or disk in use above this is told as degraded."""


def router(predictor: AsyncPredictor) -> APIRouter:
    """`/v1/healthz`, `/health`, `/v1/readyz` and `/v1/healthz/detailed`."""
    routes = APIRouter(tags=["health"])
    started = time.monotonic()

    @routes.get("/v1/healthz")
    @routes.get("/health")
    async def healthz() -> Status:
        """200 while the process lives."""
        return Status(status="ok")

    @routes.get("/v1/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """200 while forecasts are taken, else 503."""
        state, info = predictor.state, predictor.info
        if state != "ready":
            response.status_code = 503
        return Readiness(
            status="ok" if state == "ready" else state,
            model_loaded=info is not None,
            device=info.device if info else None,
            device_warning=info.device_warning if info else None,
        )

    @routes.get("/v1/healthz/detailed")
    async def detailed() -> Health:
        """How model, memory, disk and queue fare; always 200."""
        # Reading the disk's figures can wait for the disk.
        memory, disk = await asyncio.to_thread(lambda: (_memory(), _disk()))
        checks = Checks(model=_model(predictor), memory=memory, disk=disk, queue=_queue(predictor))
        parts = (checks.model, checks.memory, checks.disk, checks.queue)
        well = all(check.status == "ok" for check in parts)
        return Health(
            status="healthy" if well else "degraded",
            timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
            uptime_seconds=round(time.monotonic() - started, 3),
            checks=checks,
        )

    return routes


def _model(predictor: AsyncPredictor) -> ModelCheck:
    state, info = predictor.state, predictor.info
    return ModelCheck(
        status="ok" if state == "ready" else state,
        loaded=info is not None,
        version=version(info.model) if info else None,
    )


def _queue(predictor: AsyncPredictor) -> QueueCheck:
    waiting = predictor.queue_depth
    return QueueCheck(
        status="ok" if waiting < predictor.max_queue else "degraded",
        waiting=waiting,
        active=predictor.active,
        limit=predictor.max_queue,
    )


def _memory() -> MemoryCheck:
    system = psutil.virtual_memory()
    return MemoryCheck(
        status=_fullness(system.percent),
        process_mb=round(psutil.Process().memory_info().rss / 2**20, 1),
        system_total_mb=round(system.total / 2**20, 1),
        system_available_mb=round(system.available / 2**20, 1),
        system_percent=system.percent,
    )


def _disk() -> DiskCheck:
    disk = psutil.disk_usage(os.sep)
    return DiskCheck(
        status=_fullness(disk.percent),
        total_gb=round(disk.total / 2**30, 2),
        free_gb=round(disk.free / 2**30, 2),
        percent=disk.percent,
    )


def _fullness(percent: float) -> Literal["ok", "degraded"]:
    return "ok" if percent <= FULL_PERCENT else "degraded"
