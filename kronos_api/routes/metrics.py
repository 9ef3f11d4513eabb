"""Metrics for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from kronos_api.predictor import AsyncPredictor
from kronos_api.schemas.responses import GUARDED
from kronos_api.telemetry import metrics, vitals


def router(predictor: AsyncPredictor) -> APIRouter:
    """`/metrics` and `/v1/metrics`."""
    routes = APIRouter(tags=["metrics"])

    @routes.get("/v1/metrics", response_class=PlainTextResponse, responses=GUARDED)
    @routes.get("/metrics", response_class=PlainTextResponse, responses=GUARDED)
    async def scrape() -> Response:
        """All metrics of all workers in Prometheus' text format."""
        vitals.note_load(predictor)
        # Reading what all workers wrote takes long enough to be felt by other requests.
        return Response(await asyncio.to_thread(_render), media_type=CONTENT_TYPE_LATEST)

    return routes


def _render() -> bytes:
    vitals.note_process()
    return metrics.render()
