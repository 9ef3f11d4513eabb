"""Bounds the size of request bodies."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import RequestTooLarge
from kronos_api.middleware.callers import caller_label
from kronos_api.middleware.envelope import render
from kronos_api.telemetry import metrics

MAX_DIGITS = 18
"""A declared length of more digits is too large whatever the limit; it is not worth reading."""


class BodyLimit:
    """Refuse a body of more than `limit` bytes, whether its length is declared or not.

    A declared length is checked before a byte is read; the server holds callers to it. A body
    of undeclared length is read here, up to the limit, before the route is called: so it is
    bounded on routes, too, that never read it.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        # Where chunks come as well, the server goes by the chunks.
        if declared.isdecimal() and "transfer-encoding" not in headers:
            if len(declared) > MAX_DIGITS or int(declared) > self.limit:
                await self._refuse(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        first = await self._read(receive)
        if first is None:
            await self._refuse(scope, receive, send)
            return
        await self.app(scope, _replay(first, receive), send)

    async def _read(self, receive: Receive) -> Message | None:
        """The whole body as one message; None if it is too large."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            body += message.get("body", b"")
            if len(body) > self.limit:
                return None
            if not message.get("more_body", False):
                return {"type": "http.request", "body": bytes(body), "more_body": False}

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics.SIZE_REJECTIONS.labels(caller_label(scope)).inc()
        error = RequestTooLarge(f"The body is larger than {self.limit} bytes.")
        response = render(error, scope)
        # What the caller still sends is not read, so nothing can follow on this connection.
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


def _replay(first: Message, receive: Receive) -> Receive:
    """A `receive` that gives `first`, then what `receive` gives."""
    pending: list[Message] = [first]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
