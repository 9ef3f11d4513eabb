"""A span for each request, with the phases of its forecasts below it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import GONE
from kronos_api.middleware.access_log import UNMATCHED
from kronos_api.telemetry import phases

if TYPE_CHECKING:
    from kronos_api.telemetry.spans import Spans

HEADER: Final = "traceresponse"
"""Header of responses by W3C Trace Context: the span of the request, for its caller."""


class Tracing:
    """Trace requests by `spans()`, which is None where traces are off; `probes` are not traced.

    Log lines and the response have the ids of the span. Outside `AccessLog`, which collects the
    phases, and inside `RequestId`, which clears the context.
    """

    def __init__(
        self, app: ASGIApp, *, spans: Callable[[], Spans | None], probes: Collection[str] = ()
    ) -> None:
        self.app = app
        self.spans = spans
        self.probes = frozenset(probes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        traced = scope["type"] == "http" and scope["path"] not in self.probes
        if not traced or (spans := self.spans()) is None:
            await self.app(scope, receive, send)
            return
        from kronos_api.telemetry.spans import hex_ids

        span = spans.start(scope["method"], Headers(scope=scope))
        trace_id, span_id, flags = hex_ids(span)
        structlog.contextvars.bind_contextvars(trace_id=trace_id, span_id=span_id)
        status = GONE

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                header = f"00-{trace_id}-{span_id}-{flags:02x}"
                MutableHeaders(scope=message)[HEADER] = header
            await send(message)

        try:
            await self.app(scope, receive, send_traced)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            fields = {
                "http.request.method": scope["method"],
                "http.route": route,
                "http.response.status_code": status,
                "kronos.request_id": scope.get("state", {}).get("request_id", ""),
            }
            spans.end(span, fields, phases.current.get() or phases.RequestPhases())
