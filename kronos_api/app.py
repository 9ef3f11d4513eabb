"""Composition root: settings in, the service out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from slowapi.errors import RateLimitExceeded
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from kronos_api.build_info import this_build
from kronos_api.config import Settings
from kronos_api.errors import (
    InternalError,
    KronosError,
    MethodNotAllowed,
    NotFound,
    RateLimited,
)
from kronos_api.lifecycle import Lifecycle
from kronos_api.middleware.access_log import GONE, AccessLog
from kronos_api.middleware.admission import Admission
from kronos_api.middleware.allowed_hosts import AllowedHosts
from kronos_api.middleware.body_limit import BodyLimit
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.caller_identity import CallerIdentity
from kronos_api.middleware.callers import caller_key, caller_label
from kronos_api.middleware.compression import Compression
from kronos_api.middleware.content_encoding import ContentEncoding
from kronos_api.middleware.cross_origin import CrossOrigin
from kronos_api.middleware.envelope import Envelope, render
from kronos_api.middleware.head_method import HeadMethod
from kronos_api.middleware.lifespan import Lifespan
from kronos_api.middleware.media_type import MediaType
from kronos_api.middleware.rate_limit import PREFIX, RateLimit
from kronos_api.middleware.request_id import RequestId
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.other_routes import OtherLimiter
from kronos_api.routes import calendars, documentation, health, metrics, models, predict
from kronos_api.schemas.document import complete
from kronos_api.schemas.reading import Defaults, Limits, Reader
from kronos_api.security.build import build_identities
from kronos_api.security.peers import Peers
from kronos_api.telemetry import logging
from kronos_api.telemetry.metrics import metrics as telemetry

DESCRIPTION = """\
Forecasts of candlestick series. All refusals have one shape, `ErrorResponse`; every answer has
an `X-Request-ID`, which is the caller's own if it sends one.

Bodies are `application/json` in UTF-8, optionally with `Content-Encoding: gzip` or `zstd`; anything
else is refused with 415, and a key that stands twice in one object with 400. Responses of 2 KiB or
more are compressed where `Accept-Encoding` names zstd or gzip.
"""


def create_app(
    settings: Settings, *, predictor: AsyncPredictor | None = None, workers: int = 1
) -> FastAPI:
    """The service as an ASGI application, logging as `settings` say.

    Without a `predictor`, one is made for the checkpoints that `settings` name: they are found
    and checked before the port opens, and loaded while `/v1/readyz` says so. `workers` processes
    share this machine and the callers' limit.
    """
    logging.configure(settings.log_level)
    build = this_build()
    service = Lifecycle(settings, predictor, workers)
    predictor, limiter = service.predictor, service.limiter
    reader = _reader(settings, limiter)
    forecasts = predict.router(
        predictor, reader, timeout=settings.request_timeout, clip=settings.clip_value
    )
    if limiter is not None:
        limiter.quotas.check([path.removeprefix(PREFIX) for path in _paths(forecasts)])
    allowed, proxies = build_identities(
        settings.whitelist if settings.security_enabled else None,
        settings.proxies,
        servers=settings.nameservers,
        timeout=settings.dns_timeout,
        networks=settings.networks,
    )
    others = OtherLimiter(
        settings.rate_limit_other_per_minute,
        lambda request: caller_key(request.scope),
        enabled=settings.rate_limit_enabled,
    )
    probes = [
        health.router(predictor, build, others.limited, limiter, allowed),
        metrics.router(predictor),
    ]
    routers = [
        forecasts,
        *probes,
        models.router(predictor, settings.app_name, build, others.limited),
        calendars.router(others.limited),
        documentation.router(settings.app_name, others.limited),
    ]
    body_limit, body_memory = (
        settings.max_request_bytes,
        BodyMemory(settings.body_memory_mb * 2**20),
    )
    app = FastAPI(
        title=settings.app_name,
        version=build.version,
        description=DESCRIPTION,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        openapi_url=None,  # ours are in `routes.documentation`, with the rate limit
        middleware=[  # outermost first
            Middleware(Lifespan, service=service, peers=Peers(allowed, proxies)),
            Middleware(RequestId),
            Middleware(AccessLog, paths=_paths(*routers)),
            Middleware(Compression),
            Middleware(AllowedHosts, hosts=settings.hosts, exempt=settings.exempt_paths),
            Middleware(CrossOrigin, origins=settings.origins, exempt=settings.exempt_paths),
            Middleware(
                CallerIdentity, allowed=allowed, proxies=proxies, exempt=settings.exempt_paths
            ),
            # Here, strangers take no place, and whoever comes and finds none is not charged by the
            # limit nor read from. Probes are exempt even if they are not open to everyone.
            Middleware(Admission, limit=settings.concurrency, exempt=_paths(*probes)),
            Middleware(MediaType),
            Middleware(RateLimit, limiter=limiter, others=others, by=settings.rate_limit_batch),
            Middleware(BodyLimit, limit=body_limit, memory=body_memory),
            Middleware(ContentEncoding, limit=body_limit, memory=body_memory),
            Middleware(Envelope),
            Middleware(HeadMethod),
        ],
        exception_handlers={
            KronosError: _refuse,
            HTTPException: _refuse_route,
            RateLimitExceeded: _refuse_other,
            ClientDisconnect: _let_go,
        },
    )
    app.state.limiter = others
    for router in routers:
        app.include_router(router)
    _complete_document(app)
    return app


def _paths(*routers: APIRouter) -> list[str]:
    routes = [route for router in routers for route in router.routes]
    return [route.path for route in routes if isinstance(route, Route)]


def _reader(settings: Settings, limiter: Limiter | None) -> Reader:
    batch_items = settings.max_batch_items
    if limiter is not None and settings.rate_limit_batch != "request":
        # A batch of more series than the limit ever grants at once would only be put off.
        batch_items = min(batch_items, limiter.quotas.most("batch"))
    return Reader(
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
            work=settings.max_decode_steps,
        ),
    )


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, KronosError)
    return render(error, request.scope)


async def _refuse_route(request: Request, error: Exception) -> Response:
    """What the router finds no way for, in our own shape."""
    assert isinstance(error, HTTPException)
    known: dict[int, Callable[[], KronosError]] = {
        404: lambda: NotFound("There is no such path."),
        405: lambda: MethodNotAllowed("The path does not take this method."),
    }
    response = render(known.get(error.status_code, InternalError)(), request.scope)
    response.headers.update(error.headers or {})
    return response


async def _refuse_other(request: Request, error: Exception) -> Response:
    """A caller asks too often for what is no forecast."""
    assert isinstance(error, RateLimitExceeded)
    others: OtherLimiter = request.app.state.limiter
    verdict = others.verdict(request.state)
    assert verdict is not None
    telemetry.rate_limit_hits.labels(caller_label(request.scope)).inc()
    refusal = RateLimited(
        f"{verdict.limit} requests a minute for routes that are not forecasts are used up."
        f" Retry in {verdict.wait:.0f} s, or raise KRONOS_RATE_LIMIT_OTHER_PER_MINUTE.",
        retry_after=verdict.wait,
    )
    return render(refusal, request.scope)


async def _let_go(request: Request, error: Exception) -> Response:
    """Nobody is there to be answered."""
    del request, error
    return Response(status_code=GONE)


def _complete_document(app: FastAPI) -> None:
    generate: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
