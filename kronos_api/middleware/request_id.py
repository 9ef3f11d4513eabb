"""Gives each request an id, which its response, log lines and errors carry."""

from __future__ import annotations

import re
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")
# version, trace id, parent id, flags; later versions append fields
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


class RequestId:
    """Accept the caller's request id if it matches `_ACCEPTED`, else make one.

    `scope["state"]["request_id"]`, the response headers and every log line of the request carry it;
    log lines also have the trace id of a valid W3C `traceparent`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        context = {"request_id": request_id}
        if trace_id := _trace_id(headers.get("traceparent", "")):
            context["trace_id"] = trace_id
        # Handlers bind more fields, which must not reach the log lines of the next request.
        structlog.contextvars.clear_contextvars()
        try:
            structlog.contextvars.bind_contextvars(**context)
            await self.app(scope, receive, send_named)
        finally:
            structlog.contextvars.clear_contextvars()


def _trace_id(traceparent: str) -> str | None:
    """The trace id of a W3C `traceparent`; None if it is not valid."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, parent_id, more = match.groups()
    if (
        version == "ff"
        or (version == "00" and more)
        or not (int(trace_id, 16) and int(parent_id, 16))
    ):
        return None
    return trace_id
