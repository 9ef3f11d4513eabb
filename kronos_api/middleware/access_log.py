"""One log line and one set of metrics for each request."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.telemetry import metrics

UNMATCHED = "unmatched"
GONE = 499
"""Status logged for a caller that left before its answer."""

log = structlog.stdlib.get_logger("kronos_api.access")


class AccessLog:
    """Log and count what was asked and how it was answered.

    `endpoint` and the `route` label are the route's template, never the raw path: the number
    of label values is the number of routes. The line also holds what the handler has bound.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = GONE

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        metrics.CONCURRENT_REQUESTS.inc()
        try:
            await self.app(scope, receive, send_watched)
        finally:
            metrics.CONCURRENT_REQUESTS.dec()
            elapsed = time.perf_counter() - started
            route = _template(scope)
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.REQUEST_DURATION.labels(route).observe(elapsed)
            log.info(
                "request",
                method=scope["method"],
                endpoint=route,
                status=status,
                latency_ms=round(elapsed * 1000, 3),
            )


def _template(scope: Scope) -> str:
    """The template of the route that took the request."""
    if "route" in scope:
        return str(scope["route"].path)
    # The framework's own pages leave no route behind; without parameters a path is its template.
    known = "endpoint" in scope and not scope.get("path_params")
    return str(scope["path"]) if known else UNMATCHED
