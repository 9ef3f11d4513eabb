"""One log line and one set of metrics for each request."""

from __future__ import annotations

import time
from collections.abc import Collection

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import GONE
from kronos_api.middleware.callers import caller_label
from kronos_api.telemetry import phases
from kronos_api.telemetry.metrics import metrics

UNMATCHED = "unmatched"

log = structlog.stdlib.get_logger("kronos_api.access")


class AccessLog:
    """Log and count each request with its status and duration.

    `endpoint` and the `route` label are the route's template, never the raw path, so the number of
    label values is the number of routes. A request that was refused before it was routed has its
    path as template if that is one of `paths`. The line also holds the fields that handlers bind,
    and the time of each phase.

    A request is counted before the end of its response is sent, so that a caller which has its
    response is counted even if the process is killed. Requests of `probes`, health checks
    and scrapes, are not counted by caller, and logged as debug if they succeed; those of `scrapes`
    are not counted at all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        paths: Collection[str] = (),
        probes: Collection[str] = (),
        scrapes: Collection[str] = (),
    ) -> None:
        self.app = app
        self.paths = frozenset(paths)
        self.probes = frozenset(probes)
        self.scrapes = frozenset(scrapes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        counted = scope["path"] not in self.scrapes
        status = GONE
        elapsed: float | None = None

        def end() -> float:
            seconds = time.perf_counter() - started
            if counted:
                self._count(scope, status, seconds)
            return seconds

        async def send_watched(message: Message) -> None:
            nonlocal status, elapsed
            if message["type"] == "http.response.start":
                status = message["status"]
            elif elapsed is None and not message.get("more_body", False):
                elapsed = end()
            await send(message)

        if scope.get("client"):  # until it is identified; a refusal may come first
            structlog.contextvars.bind_contextvars(container_name=scope["client"][0])
        phases.current.set(times := phases.RequestPhases())
        started = time.perf_counter()
        metrics.concurrent_requests.inc(counted)
        try:
            await self.app(scope, receive, send_watched)
            if elapsed is None:
                status = GONE
        finally:
            metrics.concurrent_requests.dec(counted)
            elapsed = end() if elapsed is None else elapsed
            route = self._template(scope)
            line = log.debug if route in self.probes and status < 400 else log.info
            line(
                "request",
                method=scope["method"],
                endpoint=route,
                status=status,
                latency_ms=round(elapsed * 1000, 3),
                **times.milliseconds(),
            )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._template(scope)
        metrics.requests.labels(route, str(status)).inc()
        metrics.request_duration.labels(route).observe(seconds)
        if route not in self.probes:
            metrics.caller_requests.labels(caller_label(scope), str(status)).inc()

    def _template(self, scope: Scope) -> str:
        """The template of the route that handled the request, or would have handled it."""
        if "route" in scope:
            return str(scope["route"].path)
        # The framework's pages set no route; a path without parameters is its own template.
        known = "endpoint" in scope and not scope.get("path_params")
        return str(scope["path"]) if known or scope["path"] in self.paths else UNMATCHED
