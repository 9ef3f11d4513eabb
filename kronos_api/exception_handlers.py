"""Responses to the exceptions of routes and the router, all in the one shape of errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from slowapi.errors import RateLimitExceeded
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kronos_api.errors import (
    GONE,
    InternalError,
    KronosError,
    MethodNotAllowed,
    NotFound,
    RateLimited,
)
from kronos_api.middleware.callers import caller_label
from kronos_api.middleware.envelope import render
from kronos_api.ratelimit.other_routes import OtherLimiter
from kronos_api.routes.playground import PLAYGROUND
from kronos_api.telemetry.metrics import metrics

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

_SHOWN: Final = 100
"""Characters of a path or method that a message repeats."""


class ExceptionHandlers:
    """Handlers for an application with routes at `paths`, some of them limited by `others`."""

    def __init__(self, paths: Collection[str], others: OtherLimiter) -> None:
        self.paths = sorted(paths)
        self.others = others

    def by_class(self) -> dict[Any, Handler]:
        """The handler of each class of exception, as FastAPI takes them."""
        return {
            KronosError: self.known_error,
            HTTPException: self.unroutable,
            RateLimitExceeded: self.other_limit_exceeded,
            ClientDisconnect: self.client_disconnected,
        }

    async def known_error(self, request: Request, error: KronosError) -> Response:
        """The response of `error` itself."""
        return render(error, request.scope)

    async def unroutable(self, request: Request, error: HTTPException) -> Response:
        """404 or 405 of the router, with the nearest path or the accepted methods."""
        headers = error.headers or {}
        known: KronosError = InternalError()
        if error.status_code == 404:
            known = NotFound(self._no_path(request.url.path[:_SHOWN]))
        elif error.status_code == 405:
            methods = ", ".join(sorted(headers.get("Allow", "").split(", ")))
            method = request.method[:_SHOWN]
            known = MethodNotAllowed(f"{method!a} is not accepted at this path; use {methods}.")
        response = render(known, request.scope)
        response.headers.update(headers)
        return response

    def _no_path(self, path: str) -> str:
        if path == PLAYGROUND:
            return "The playground is off. KRONOS_PLAYGROUND=true turns it on."
        near = difflib.get_close_matches(path, self.paths, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"There is no path {path!a}.{hint} /docs lists all paths."

    async def other_limit_exceeded(self, request: Request, error: RateLimitExceeded) -> Response:
        """429 for a request that is no forecast."""
        del error
        verdict = self.others.verdict(request.state)
        assert verdict is not None
        metrics.rate_limit_hits.labels(caller_label(request.scope)).inc()
        refusal = RateLimited(
            f"Rate limit: {verdict.remaining} of {verdict.limit} requests per minute to routes that"
            f" are not forecasts are left. Retry in {verdict.wait:.0f} s, or raise"
            " KRONOS_RATE_LIMIT_OTHER_PER_MINUTE.",
            retry_after=verdict.wait,
        )
        return render(refusal, request.scope)

    async def client_disconnected(self, request: Request, error: ClientDisconnect) -> Response:
        """A response that no client receives; its status is logged."""
        del request, error
        return Response(status_code=GONE)
