"""Liveness, readiness, and the health of the service's parts."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Final, Literal

import psutil
from fastapi import APIRouter, Request, Response

from kronos_api.build_info import Build
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.other_routes import Limited
from kronos_api.routes import inference_protocol
from kronos_api.schemas.responses import LIMITED
from kronos_api.schemas.status import (
    Checks,
    DiskCheck,
    Health,
    Liveness,
    MemoryCheck,
    ModelCheck,
    QueueCheck,
    RateLimitCheck,
    Readiness,
    WhitelistCheck,
)
from kronos_api.security.identity import Identity

FULL_PERCENT: Final = 90.0
"""Memory or disk use above this is reported as degraded."""


def router(
    predictor: AsyncPredictor,
    build: Build,
    limited: Limited,
    limiter: Limiter | None = None,
    allowed: Identity | None = None,
) -> APIRouter:
    """`/v1/healthz`, `/health`, `/v1/readyz`, `/v1/healthz/detailed` and `/v2/health/…`."""
    routes = APIRouter(tags=["health"])
    started = time.monotonic()

    @routes.get("/v1/healthz", name="healthz")
    @routes.get("/health", name="health")
    async def healthz() -> Liveness:
        """200 while the process lives."""
        return Liveness(status="ok")

    @routes.get(
        "/v1/readyz", responses={503: {"model": Readiness}}, response_model_exclude_unset=True
    )
    async def readyz(response: Response) -> Readiness:
        """200 while forecasts are accepted, else 503."""
        readiness = _readiness(predictor, limiter)
        if readiness.status != "ok":
            response.status_code = 503
        return readiness

    @routes.get("/v1/healthz/detailed", name="healthz_detailed", responses=LIMITED)
    @limited
    async def detailed(request: Request) -> Health:
        """The health of the service's parts; always 200."""
        del request
        # In a thread: reading disk usage can block.
        memory, disk = await asyncio.to_thread(lambda: (_memory(), _disk()))
        checks = Checks(
            model=_model(predictor),
            memory=memory,
            disk=disk,
            queue=_queue(predictor),
            rate_limit_store=_store(limiter),
            whitelist=_whitelist(allowed),
        )
        return _health(checks, build, started)

    inference_protocol.add_health(routes, predictor)
    return routes


def _health(checks: Checks, build: Build, started: float) -> Health:
    well = all(check.status in ("ok", "off") for _, check in checks)
    return Health(
        status="healthy" if well else "degraded",
        version=build.version,
        commit=build.commit,
        timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
        uptime_seconds=round(time.monotonic() - started, 3),
        checks=checks,
    )


def _readiness(predictor: AsyncPredictor, limiter: Limiter | None) -> Readiness:
    state, info = predictor.readiness, predictor.info
    readiness = Readiness(
        status="ok" if state == "ready" else state,
        model_loaded=info is not None,
        device=info.device if info else None,
        device_warning=info.device_warning if info else None,
    )
    if limiter is not None and limiter.degraded:  # unset otherwise, and left out of the response
        readiness.rate_limit_store = "degraded"
    return readiness


def _model(predictor: AsyncPredictor) -> ModelCheck:
    state, info = predictor.readiness, predictor.info
    return ModelCheck(
        status="ok" if state == "ready" else state,
        loaded=info is not None,
        version=info.model.version if info else None,
    )


def _queue(predictor: AsyncPredictor) -> QueueCheck:
    waiting = predictor.queue_depth
    return QueueCheck(
        status="ok" if waiting < predictor.max_queue else "degraded",
        waiting=waiting,
        active=predictor.active,
        limit=predictor.max_queue,
    )


def _store(limiter: Limiter | None) -> RateLimitCheck:
    if limiter is None:
        return RateLimitCheck(
            status="off", store=None, limit_per_minute=None, share_per_minute=None
        )
    per_minute = limiter.quotas.per_minute
    return RateLimitCheck(
        status="degraded" if limiter.degraded else "ok",
        store=limiter.store.kind,
        limit_per_minute=per_minute,
        share_per_minute=limiter.share(per_minute),
    )


def _whitelist(allowed: Identity | None) -> WhitelistCheck:
    if allowed is None:
        return WhitelistCheck(status="off", entries=0)
    return WhitelistCheck(
        status="degraded" if allowed.dns_failed else "ok", entries=len(allowed.whitelist)
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
