"""Bounds the size of request bodies: of each, and of all that are held at once."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import RequestTooLarge
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.callers import caller_label
from kronos_api.middleware.envelope import render
from kronos_api.telemetry.metrics import metrics

MAX_DIGITS = 18
"""A declared length of more digits is too large whatever the limit; it is not worth reading."""


class BodyLimit:
    """Refuse a body of more than `limit` bytes, whether its length is declared or not.

    A declared length is checked before a byte is read; the server holds callers to it. A body
    is read only where a route reads it, and counted in `memory` as it comes. Where the rest of a
    body has no bound, because its length is too large or not declared, the response closes the
    connection.
    """

    def __init__(self, app: ASGIApp, *, limit: int, memory: BodyMemory) -> None:
        self.app = app
        self.limit = limit
        self.memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        too_much = self._declares_too_much(headers)
        size, endless = 0, too_much or "transfer-encoding" in headers

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and endless:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if too_much:
            await render(too_large(scope, self.limit), scope)(scope, receive, send_last)
            return
        with self.memory.share(scope) as take:

            async def counted() -> Message:
                nonlocal size, endless
                message = await receive()
                if message["type"] == "http.request":
                    piece = len(message.get("body", b""))
                    size += piece
                    if size > self.limit:
                        raise too_large(scope, self.limit)
                    take(piece)
                    endless = endless and message.get("more_body", False)
                return message

            await self.app(scope, counted, send_last)

    def _declares_too_much(self, headers: Headers) -> bool:
        declared = headers.get("content-length", "")
        # Where chunks come as well, the server goes by the chunks.
        if not declared.isdecimal() or "transfer-encoding" in headers:
            return False
        return len(declared) > MAX_DIGITS or int(declared) > self.limit


def has_body(headers: Headers) -> bool:
    """Whether a request with `headers` has a body, or may have one."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def too_large(scope: Scope, limit: int, body: str = "The body") -> RequestTooLarge:
    """The refusal of a body of more than `limit` bytes, counted for the caller."""
    metrics.size_rejections.labels(caller_label(scope)).inc()
    message = f"{body} is larger than {limit} bytes; KRONOS_MAX_REQUEST_SIZE_MB sets the limit."
    return RequestTooLarge(message)
