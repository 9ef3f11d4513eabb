"""Metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from kronos_api.predictor import AsyncPredictor
from kronos_api.telemetry import metrics


def router(predictor: AsyncPredictor) -> APIRouter:
    """`/metrics` and `/v1/metrics`."""
    routes = APIRouter(tags=["metrics"])

    @routes.get("/v1/metrics", response_class=Response)
    @routes.get("/metrics", response_class=Response)
    async def scrape() -> Response:
        """All metrics in Prometheus' text format."""
        metrics.QUEUE_DEPTH.set(predictor.queue_depth)
        metrics.ACTIVE_SERIES.set(predictor.active)
        metrics.KV_CACHE_BYTES.set(predictor.kv_cache_bytes)
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return routes
