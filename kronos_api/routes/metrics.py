"""Metrics for Prometheus."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from kronos_api.predictor import AsyncPredictor
from kronos_api.schemas.responses import GUARDED
from kronos_api.telemetry import process_metrics
from kronos_api.telemetry.metrics import metrics

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    **GUARDED,
}


def router(predictor: AsyncPredictor) -> APIRouter:
    """`/metrics` and `/v1/metrics`."""
    routes = APIRouter(tags=["metrics"])

    @routes.get("/v1/metrics", name="metrics_v1", response_class=Response, responses=RESPONSES)
    @routes.get("/metrics", name="metrics", response_class=Response, responses=RESPONSES)
    async def scrape() -> Response:
        """All metrics of all workers in Prometheus' text format."""
        process_metrics.record_load(predictor)
        # In a thread: reading the files of all workers takes milliseconds.
        return Response(await asyncio.to_thread(_render), media_type=CONTENT_TYPE_LATEST)

    return routes


def _render() -> bytes:
    process_metrics.record_process()
    return metrics.render()
