"""Composition root: settings in, the service out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from kronos_api.build_info import this_build
from kronos_api.capacity import share
from kronos_api.config import Settings
from kronos_api.exception_handlers import ExceptionHandlers, Handler
from kronos_api.forecast_router import forecast_router
from kronos_api.lifecycle import Lifecycle
from kronos_api.mcp import MCP_PATH, mcp_installed
from kronos_api.mcp.routes import local_app
from kronos_api.middleware.access_log import AccessLog
from kronos_api.middleware.admission import Admission
from kronos_api.middleware.allowed_hosts import AllowedHosts
from kronos_api.middleware.body_limit import BodyLimit
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.caller_identity import CallerIdentity
from kronos_api.middleware.callers import caller_key
from kronos_api.middleware.compression import Compression
from kronos_api.middleware.content_encoding import ContentEncoding
from kronos_api.middleware.credentials import Credentials
from kronos_api.middleware.cross_origin import CrossOrigin
from kronos_api.middleware.envelope import Envelope
from kronos_api.middleware.head_method import HeadMethod
from kronos_api.middleware.lifespan import Lifespan
from kronos_api.middleware.media_type import MediaType
from kronos_api.middleware.rate_limit import PREFIX, RateLimit
from kronos_api.middleware.request_id import RequestId
from kronos_api.middleware.tracing import Tracing
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.other_routes import OtherLimiter
from kronos_api.routers import Routers, paths_of
from kronos_api.routes import (
    calendars,
    documentation,
    health,
    metrics,
    models,
    playground,
)
from kronos_api.schemas.document import complete
from kronos_api.security.build import Callers, build_callers
from kronos_api.security.identity import Identity
from kronos_api.telemetry import logging
from kronos_api.telemetry.metrics import metrics as observed_metrics

DESCRIPTION = """\
Forecasts of candlestick series. All errors have one shape, `ErrorResponse`. Every response has an
`X-Request-ID`: the caller's own if the request has one.

Bodies are `application/json` in UTF-8, optionally with `Content-Encoding: gzip` or `zstd`. Other
types get 415, and a duplicate key in an object gets 400. Responses of 2 KiB or more are compressed
if `Accept-Encoding` names zstd or gzip.
"""


def create_app(
    settings: Settings, *, predictor: AsyncPredictor | None = None, workers: int = 1
) -> FastAPI:
    """The service as an ASGI application, which logs as `settings` say.

    Without a `predictor`, one is made for the checkpoints that `settings` name: they are found
    and checked before the port opens, and loaded while `/v1/readyz` answers 503. `workers`
    processes share this machine, the memory and queue that `settings` give the service, and the
    rate limit of callers.

    Raises:
        StartupError: a setting names a checkpoint, a route, a nameserver or a file that does not
            exist.
    """
    logging.configure(settings.log_level, settings.log_format, settings.replica_name)
    service = Lifecycle(settings, predictor, workers)
    callers = _callers(settings)
    others = OtherLimiter(
        settings.rate_limit_other_per_minute,
        lambda request: caller_key(request.scope),
        enabled=settings.rate_limit_enabled,
    )
    routers = _routers(settings, service, callers.allowed, others)
    memory = BodyMemory(share(settings, workers).body_memory_mb * 2**20)
    service.labels = routers.labels(callers.labels)
    app = FastAPI(
        title=settings.app_name,
        version=this_build().version,
        description=DESCRIPTION,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        openapi_url=None,  # `routes.documentation` has the rate limit
        middleware=_middleware(settings, service, routers, callers, others, memory),
        exception_handlers=_exception_handlers(routers, others),
    )
    app.state.limiter = others
    app.state.predictor = service.predictor
    for router in routers.all:
        app.include_router(router)
    _complete_document(app, keys=callers.keys is not None, tokens=callers.accounts is not None)
    return app


def create_local(settings: Settings) -> tuple[Lifecycle, FastAPI]:
    """The service for one caller in this process: its start and stop, and its routes."""
    off = dict.fromkeys(("rate_limit_enabled", "mcp", "playground"), False)
    local = settings.model_copy(update=off | {"cache": "off"})
    service = Lifecycle(local, None)
    others = OtherLimiter(local.rate_limit_other_per_minute, lambda _: "", enabled=False)
    routers = _routers(local, service, None, others)
    return service, _local_routes(local, service, routers, others)


def _callers(settings: Settings) -> Callers:
    return build_callers(
        settings.whitelist if settings.security_enabled else None,
        settings.proxies,
        keys=settings.api_keys_file,
        servers=settings.nameservers,
        timeout=settings.dns_timeout,
        networks=settings.networks,
        blocks=settings.named_blocks,
        observe=lambda result, seconds: observed_metrics.dns_query.labels(result).observe(seconds),
        issuer=settings.token_issuer,
        observe_keys=lambda result: observed_metrics.signing_key_fetches.labels(result).inc(),
    )


def _middleware(
    settings: Settings,
    service: Lifecycle,
    routers: Routers,
    callers: Callers,
    others: OtherLimiter,
    memory: BodyMemory,
) -> list[Middleware]:
    exempt, limit, by = settings.exempt_paths, settings.max_request_bytes, settings.rate_limit_batch
    own_pages, probes = [playground.READ], paths_of(*routers.probes)
    credentials = Credentials(callers.keys, callers.accounts, probes=probes)
    return [  # outermost first
        Middleware(Lifespan, service=service, peers=callers.peers),
        Middleware(RequestId),
        Middleware(Tracing, spans=lambda: service.spans, probes=probes),
        Middleware(
            AccessLog,
            paths=paths_of(*routers.all),
            probes=probes,
            scrapes=paths_of(routers.scrapes),
        ),
        Middleware(Compression),
        Middleware(AllowedHosts, hosts=settings.hosts, exempt=exempt),
        Middleware(CrossOrigin, origins=settings.origins, exempt=exempt, own_pages=own_pages),
        Middleware(
            CallerIdentity,
            allowed=callers.allowed,
            proxies=callers.proxies,
            exempt=exempt,
            credentials=credentials,
            blocked=lambda: service.controls.orders.blocked,
        ),
        # After identity, so that unlisted clients take no place; before the rate limit and the
        # body, so that a refusal costs no quota and reads no body. Probes are exempt even if they
        # are not open to every caller.
        Middleware(Admission, limit=settings.concurrency, exempt=probes),
        Middleware(MediaType, paths=(MCP_PATH,)),
        Middleware(RateLimit, limiter=service.limiter, others=others, by=by),
        Middleware(BodyLimit, limit=limit, memory=memory),
        Middleware(ContentEncoding, limit=limit, memory=memory),
        Middleware(Envelope),
        Middleware(HeadMethod),
    ]


def _routers(
    settings: Settings, service: Lifecycle, allowed: Identity | None, others: OtherLimiter
) -> Routers:
    predictor, limiter, build = service.predictor, service.limiter, this_build()
    forecasts = forecast_router(settings, service)
    if limiter is not None:
        limiter.quotas.check([path.removeprefix(PREFIX) for path in paths_of(forecasts)])
    routers = Routers(
        forecasts,
        health=health.router(predictor, build, others.limited, limiter, allowed),
        scrapes=metrics.router(predictor),
        others=(
            models.router(predictor, settings.app_name, build, others.limited),
            calendars.router(others.limited),
            documentation.router(settings.app_name, others.limited),
        ),
    )
    if settings.playground:
        pages = playground.router(settings.app_name, others.limited, settings.max_request_bytes)
        routers = replace(routers, others=(*routers.others, pages))
    if not settings.mcp:
        return routers
    with mcp_installed("KRONOS_MCP is on"):
        from kronos_api.mcp.http import router
    tools = router(_local_routes(settings, service, routers, others), others.limited)
    return replace(routers, others=(*routers.others, tools))


def _local_routes(
    settings: Settings, service: Lifecycle, routers: Routers, others: OtherLimiter
) -> FastAPI:
    handlers = _exception_handlers(routers, others)
    return local_app(routers.all, handlers, service.limiter, others, by=settings.rate_limit_batch)


def _exception_handlers(routers: Routers, others: OtherLimiter) -> dict[Any, Handler]:
    return ExceptionHandlers(paths_of(*routers.all), others).by_class()


def _complete_document(app: FastAPI, *, keys: bool, tokens: bool) -> None:
    generate: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = complete(generate(), keys=keys, tokens=tokens)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
