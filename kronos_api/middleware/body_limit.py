"""Bounds the size of each request body, and the memory of all bodies in progress."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import RequestTooLarge
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.callers import caller_label
from kronos_api.middleware.envelope import render
from kronos_api.telemetry.metrics import metrics

MAX_DIGITS = 18
"""A declared length of more digits is too large for any limit and is not parsed."""


class BodyLimit:
    """Refuse a body of more than `limit` bytes, whether its length is declared or not.

    A declared length is checked before a byte is read, and the server enforces it. A body is read
    only if a route reads it, and counted in `memory` as it arrives. If the rest of a body has no
    bound, because its length is too large or not declared, the response closes the connection.
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
        declared = self._declared(headers)
        too_much = declared is not None and declared > self.limit
        size, endless = 0, too_much or "transfer-encoding" in headers

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and endless:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if too_much:
            error = too_large(scope, self.limit, f"The body has {declared} bytes")
            await render(error, scope)(scope, receive, send_last)
            return
        with self.memory.share(scope) as take:

            async def counted() -> Message:
                nonlocal size, endless
                message = await receive()
                if message["type"] == "http.request":
                    piece = len(message.get("body", b""))
                    size += piece
                    if size > self.limit:
                        found = f"The body has {size} bytes or more"
                        raise too_large(scope, self.limit, found)
                    take(piece)
                    endless = endless and message.get("more_body", False)
                return message

            await self.app(scope, counted, send_last)

    def _declared(self, headers: Headers) -> int | None:
        """The declared length, at most 10 ** `MAX_DIGITS`; None if the body comes in chunks."""
        declared = headers.get("content-length", "")
        # A body with both headers is read by its chunks.
        if not declared.isdecimal() or "transfer-encoding" in headers:
            return None
        return int(declared) if len(declared) <= MAX_DIGITS else 10**MAX_DIGITS


def has_body(headers: Headers) -> bool:
    """Whether a request with `headers` announces a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def too_large(scope: Scope, limit: int, found: str) -> RequestTooLarge:
    """The refusal of a body of more than `limit` bytes, counted for the caller.

    `found`: the size, such as `The body has 11000000 bytes`.
    """
    metrics.size_rejections.labels(caller_label(scope)).inc()
    message = f"{found}; at most {limit} are accepted. Send fewer series, or raise "
    return RequestTooLarge(f"{message}KRONOS_MAX_REQUEST_SIZE_MB.")
