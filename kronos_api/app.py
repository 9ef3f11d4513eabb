"""Composition root: settings in, the service out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from kronos_api import __version__
from kronos_api.batching.worker import Engine
from kronos_api.config import Settings
from kronos_api.engine.build import build_engine
from kronos_api.engine.checkpoint import Source, inspect, locate
from kronos_api.engine.cores import usable_cores
from kronos_api.engine.sequence import Job
from kronos_api.errors import (
    InternalError,
    KronosError,
    MethodNotAllowed,
    NotFound,
    StartupError,
)
from kronos_api.middleware.access_log import GONE, AccessLog
from kronos_api.middleware.body_limit import BodyLimit
from kronos_api.middleware.caller_identity import CallerIdentity
from kronos_api.middleware.envelope import Envelope, render
from kronos_api.middleware.lifespan import Lifespan
from kronos_api.middleware.rate_limit import PREFIX, RateLimit
from kronos_api.middleware.request_id import RequestId
from kronos_api.predictor import AsyncPredictor
from kronos_api.ratelimit.build import build_limiter
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.routes import health, metrics, models, predict
from kronos_api.schemas.reading import Defaults, Limits, Reader
from kronos_api.schemas.requests import BatchRequest, PredictRequest
from kronos_api.schemas.writing import version
from kronos_api.security.build import build_identities
from kronos_api.telemetry import logging
from kronos_api.telemetry.metrics import MODEL_INFO

log = structlog.stdlib.get_logger(__name__)

DESCRIPTION = """\
Forecasts of candlestick series. All refusals have one shape, `ErrorResponse`; every answer has
an `X-Request-ID`, which is the caller's own if it sends one.
"""


def create_app(settings: Settings, *, predictor: AsyncPredictor | None = None) -> FastAPI:
    """The service as an ASGI application, logging as `settings` say.

    Without a `predictor`, one is made for the checkpoints that `settings` name: they are found
    and checked before the port opens, and loaded while `/v1/readyz` says so.
    """
    logging.configure(settings.log_level)
    checkpoints = None
    if predictor is None:
        checkpoints = Checkpoints(settings)
        predictor = AsyncPredictor(
            checkpoints.load,
            max_queue=settings.max_queue,
            inference_timeout=settings.inference_timeout,
            clip=settings.clip_value,
            kv_cache_mb=settings.kv_cache_mb,
        )
    limiter = _limiter(settings) if settings.rate_limit_enabled else None
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
    routers = [
        forecasts,
        health.router(predictor, limiter, allowed),
        models.router(predictor, settings.app_name),
        metrics.router(predictor),
    ]
    service = Service(settings, predictor, checkpoints, limiter)
    app = FastAPI(
        title=settings.app_name,
        version=__version__,
        description=DESCRIPTION,
        redirect_slashes=False,
        middleware=[  # outermost first
            Middleware(Lifespan, startup=service.start, shutdown=service.stop),
            Middleware(RequestId),
            Middleware(AccessLog, paths=_paths(*routers)),
            Middleware(
                CallerIdentity, allowed=allowed, proxies=proxies, exempt=settings.exempt_paths
            ),
            Middleware(RateLimit, limiter=limiter, by_items=settings.rate_limit_batch == "items"),
            Middleware(BodyLimit, limit=settings.max_request_bytes),
            Middleware(Envelope),
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


def _limiter(settings: Settings) -> Limiter:
    url = settings.redis_url
    return build_limiter(
        per_minute=settings.rate_limit_per_minute,
        limits=settings.rate_limits or "",
        redis_url=url.get_secret_value() if url else None,
        folder=settings.rate_limit_dir,
        workers=settings.workers,
        replicas=settings.replicas,
    )


class Checkpoints:
    """The checkpoints that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sources: tuple[Source, Source] | None = None

    def find(self) -> None:
        """Bring model and tokenizer to this machine and check them; raises `StartupError`."""
        timeout = self.settings.startup_timeout
        model = locate(self.settings.model_source, "model", timeout=timeout)
        tokenizer = locate(self.settings.tokenizer_source, "tokenizer", timeout=timeout)
        inspect(model, tokenizer)
        self.sources = model, tokenizer

    def load(self) -> Engine[Job, Any]:
        """The engine that runs them; called in the engine's thread."""
        settings = self.settings
        assert self.sources is not None
        model, tokenizer = self.sources
        return build_engine(
            model,
            tokenizer,
            device=settings.device,
            dtype=settings.dtype,
            max_context=settings.max_context,
            window_policy=settings.window_policy,
            torch_threads=settings.torch_threads or max(1, usable_cores() // settings.workers),
        )


class Service:
    """What runs from start to stop."""

    def __init__(
        self,
        settings: Settings,
        predictor: AsyncPredictor,
        checkpoints: Checkpoints | None,
        limiter: Limiter | None,
    ) -> None:
        self.settings = settings
        self.predictor = predictor
        self.checkpoints = checkpoints
        self.limiter = limiter
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Before the port opens: check the checkpoints, start to load them."""
        if self.checkpoints is not None:
            try:
                async with asyncio.timeout(self.settings.startup_timeout):
                    await asyncio.to_thread(self.checkpoints.find)
            except TimeoutError:
                raise StartupError(
                    "the checkpoints were not found and checked within KRONOS_STARTUP_TIMEOUT"
                    f" ({self.settings.startup_timeout:g} s)"
                ) from None
        if not self.settings.security_enabled:
            log.warning("security is off: every caller is served")
        if self.limiter is not None:
            await self.limiter.start()
        await self.predictor.start()
        self._watch = asyncio.create_task(self._tell_when_ready())

    async def stop(self) -> None:
        """After the last connection: answer what was accepted, let the model go."""
        if self._watch is not None:
            self._watch.cancel()
        await self.predictor.stop(self.settings.shutdown_timeout)
        if self.limiter is not None:
            await self.limiter.stop()

    async def _tell_when_ready(self) -> None:
        try:
            await self.predictor.ready()
        except StartupError as error:
            log.error("model failed to load", reason=str(error))
            return
        # What is loaded stays: a full collection that skips it takes a tenth of the time.
        gc.freeze()
        info = self.predictor.info
        assert info is not None
        named = {"model": version(info.model), "tokenizer": version(info.tokenizer)}
        MODEL_INFO.labels(
            **named, device=info.device, dtype=info.dtype, demo=str(info.demo).lower()
        ).set(1)
        log.info("model ready", **named, device=info.device, dtype=info.dtype, demo=info.demo)
        if info.device_warning:
            log.warning(info.device_warning)
        if info.demo:
            log.warning("this is the bundled demonstration checkpoint: not for trading")


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
