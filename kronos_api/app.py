"""Composition root: settings in, the service out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from kronos_api import __version__
from kronos_api.config import Settings
from kronos_api.errors import (
    InternalError,
    KronosError,
    MethodNotAllowed,
    NotFound,
)
from kronos_api.middleware.access_log import GONE, AccessLog
from kronos_api.middleware.admission import Admission
from kronos_api.middleware.allowed_hosts import AllowedHosts
from kronos_api.middleware.body_limit import BodyLimit
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.caller_identity import CallerIdentity
from kronos_api.middleware.compression import Compression
from kronos_api.middleware.content_encoding import ContentEncoding
from kronos_api.middleware.cross_origin import CrossOrigin
from kronos_api.middleware.envelope import Envelope, render
from kronos_api.middleware.head import Head
from kronos_api.middleware.lifespan import Lifespan
from kronos_api.middleware.media_type import MediaType
from kronos_api.middleware.rate_limit import PREFIX, RateLimit
from kronos_api.middleware.request_id import RequestId
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.routes import health, metrics, models, predict
from kronos_api.schemas.reading import Defaults, Limits, Reader
from kronos_api.schemas.requests import BatchRequest, PredictRequest
from kronos_api.security.build import build_identities
from kronos_api.service import Service
from kronos_api.telemetry import logging

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
    service = Service(settings, predictor, workers)
    predictor, limiter = service.predictor, service.limiter
    reader = _reader(settings, limiter)
    forecasts = predict.router(predictor, reader, timeout=settings.request_timeout)
    if limiter is not None:
        limiter.quotas.check([path.removeprefix(PREFIX) for path in _paths(forecasts)])
    allowed, proxies = build_identities(
        settings.whitelist if settings.security_enabled else None,
        settings.proxies,
        servers=settings.nameservers,
        timeout=settings.dns_timeout,
        networks=settings.networks,
    )
    probes = [health.router(predictor, limiter, allowed), metrics.router(predictor)]
    routers = [forecasts, *probes, models.router(predictor, settings.app_name)]
    body_limit, body_memory = (
        settings.max_request_bytes,
        BodyMemory(settings.body_memory_mb * 2**20),
    )
    app = FastAPI(
        title=settings.app_name,
        version=__version__,
        description=DESCRIPTION,
        redirect_slashes=False,
        middleware=[  # outermost first
            Middleware(Lifespan, service=service),
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
            Middleware(RateLimit, limiter=limiter, by_items=settings.rate_limit_batch == "items"),
            Middleware(BodyLimit, limit=body_limit, memory=body_memory),
            Middleware(ContentEncoding, limit=body_limit, memory=body_memory),
            Middleware(Envelope),
            Middleware(Head),
        ],
        exception_handlers={
            KronosError: _refuse,
            HTTPException: _refuse_route,
            ClientDisconnect: _let_go,
        },
    )
    for router in routers:
        app.include_router(router)
    _document_requests(app)
    return app


def _paths(*routers: APIRouter) -> list[str]:
    routes = [route for router in routers for route in router.routes]
    return [route.path for route in routes if isinstance(route, Route)]


def _reader(settings: Settings, limiter: Limiter | None) -> Reader:
    batch_items = settings.max_batch_items
    if limiter is not None and settings.rate_limit_batch == "items":
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
            work=settings.max_work,
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


async def _let_go(request: Request, error: Exception) -> Response:
    """Nobody is there to be answered."""
    del request, error
    return Response(status_code=GONE)


def _document_requests(app: FastAPI) -> None:
    """Add the request models, which the routes read by themselves, to the OpenAPI document."""
    generate: Callable[[], dict[str, Any]] = app.openapi
    _, definitions = models_json_schema(
        [(PredictRequest, "validation"), (BatchRequest, "validation")],
        ref_template="#/components/schemas/{model}",
    )

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["schemas"] |= definitions["$defs"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
