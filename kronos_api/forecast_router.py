"""The router of forecasts, from settings: defaults, limits, and the responses that are kept."""

from __future__ import annotations

from fastapi import APIRouter

from kronos_api.build_info import this_build
from kronos_api.config import Settings
from kronos_api.lifecycle import Lifecycle
from kronos_api.middleware.callers import caller_key
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.routes import predict
from kronos_api.routes.caching import CachedForecasts
from kronos_api.schemas.parsing import Defaults, Limits, RequestParser


def forecast_router(settings: Settings, service: Lifecycle) -> APIRouter:
    """`/v1/predict/*` of `service`."""
    return predict.router(
        service.predictor,
        _parser(settings, service.limiter),
        timeout=settings.request_timeout,
        clip=settings.clip_value,
        cached=_cached(settings, service),
    )


def _cached(settings: Settings, service: Lifecycle) -> CachedForecasts | None:
    if service.cache is None:
        return None
    depends = (this_build(), settings.window_policy, settings.clip_value)
    return CachedForecasts(service.cache, depends, lambda request: caller_key(request.scope))


def _parser(settings: Settings, limiter: Limiter | None) -> RequestParser:
    batch_items, batch_setting = settings.max_batch_items, "KRONOS_MAX_BATCH_ITEMS"
    if limiter is not None and settings.rate_limit_batch != "request":
        # No retry would help a batch of more series than the limit ever grants at once.
        granted = limiter.quotas.most("batch")
    else:
        granted = batch_items
    if granted < batch_items:
        batch_items = granted
        batch_setting = "the rate limit: KRONOS_RATE_LIMIT_PER_MINUTE, KRONOS_RATE_LIMITS"
    return RequestParser(
        Defaults(
            pred_len=settings.default_pred_len,
            temperature=settings.default_temperature,
            top_k=settings.default_top_k,
            top_p=settings.default_top_p,
            sample_count=settings.default_sample_count,
        ),
        Limits(
            batch_items=batch_items,
            samples=settings.max_samples,
            decode_steps=settings.max_decode_steps,
            batch_setting=batch_setting,
        ),
    )
