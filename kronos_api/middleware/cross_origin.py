"""Refuses web pages of other origins, except those that the operator allows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import OriginNotAllowed
from kronos_api.middleware.envelope import render
from kronos_api.telemetry.metrics import OTHER, metrics

ANY: Final = "*"
EXPOSED: Final = (
    "Retry-After",
    "X-Cache",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-ID",
)
"""Response headers that scripts of allowed pages can read."""
_PORTS: Final = {"http": ":80", "https": ":443"}
_SHOWN: Final = 100

log = structlog.stdlib.get_logger("kronos_api.security")


class CrossOrigin:
    """Refuse a request with an `Origin` that is neither in `origins` nor the service's own.

    A browser has the access of its machine: without this, any web page could call the service from
    there, although it cannot read the response. Origins in `origins` get CORS headers and answers
    to their preflights. Paths in `exempt` are open to every origin, and those in `own_pages` to no
    other origin at all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        origins: Collection[str],
        exempt: Collection[str],
        own_pages: Collection[str] = (),
    ) -> None:
        self.app = app
        self.own_pages = frozenset(own_pages)
        self.origins = frozenset(origin.lower() for origin in origins)
        self.exempt = frozenset(exempt)
        # The router judges the requests of an allowed page, not the preflight.
        self.cors = CORSMiddleware(
            app,
            allow_origins=self.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = Headers(scope=scope).get("origin") if scope["type"] == "http" else None
        if origin is None:
            await self.app(scope, receive, send)
            return
        own = origin == _own_origin(scope)
        if scope["path"] in self.own_pages:
            allowed = own
        elif origin in self.origins or ANY in self.origins:
            await self.cors(scope, receive, send)
            return
        else:
            allowed = own or scope["path"] in self.exempt
        if allowed:
            await self.app(scope, receive, send)
        else:
            await self._refusal(origin, scope)(scope, receive, send)

    def _refusal(self, origin: str, scope: Scope) -> Response:
        shown = origin[:_SHOWN]
        metrics.security_events.labels("origin_refused", OTHER).inc()
        log.warning("origin_refused", origin=shown)
        remedy = "Add the origin to KRONOS_CORS_ORIGINS."
        if scope["path"] in self.own_pages:
            remedy = "This path is for the service's own page."
        message = f"Web pages of {shown!a} are not allowed to call this service. {remedy}"
        response = render(OriginNotAllowed(message), scope)
        response.headers["Connection"] = "close"
        return response


def _own_origin(scope: Scope) -> str:
    """The origin of the service's own pages, as the request names the service.

    A page of another origin cannot set X-Forwarded-Proto without a preflight.
    """
    headers = Headers(scope=scope)
    scheme = headers.get("x-forwarded-proto", scope["scheme"]).lower()
    host = headers.get("host", "").lower()
    return f"{scheme}://{host.removesuffix(_PORTS.get(scheme, ':'))}"
