"""Bounds the size of request bodies: of each, and of all that are held at once."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import KronosError, QueueFull, RequestTooLarge
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

    What has come of the bodies of all requests in progress has `memory` bytes; a request whose
    body finds no room is refused.
    """

    def __init__(self, app: ASGIApp, *, limit: int, memory: int) -> None:
        self.app = app
        self.limit = limit
        self.memory = memory
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken = _Taken()
        try:
            try:
                receive = await self._take(taken, Headers(scope=scope), receive)
            except KronosError as error:
                await _refuse(error, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            self._held -= taken.bytes

    async def _take(self, taken: _Taken, headers: Headers, receive: Receive) -> Receive:
        """What the body is read with, in the memory that there is; raises `KronosError`."""

        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._add(taken, len(message.get("body", b"")))
            return message

        declared = headers.get("content-length", "")
        # Where chunks come as well, the server goes by the chunks.
        if declared.isdecimal() and "transfer-encoding" not in headers:
            if len(declared) > MAX_DIGITS or int(declared) > self.limit:
                raise self._too_large()
            return counted
        body = bytearray()
        while True:
            message = await counted()
            if message["type"] != "http.request":
                return _replay(message, receive)
            body += message.get("body", b"")
            if not message.get("more_body", False):
                whole = {"type": "http.request", "body": bytes(body), "more_body": False}
                return _replay(whole, receive)

    def _add(self, taken: _Taken, size: int) -> None:
        if taken.bytes + size > self.limit:
            raise self._too_large()
        if self._held + size > self.memory:
            metrics.ADMISSION_REFUSALS.inc()
            message = f"Bodies of {self._held} bytes are in progress; this one finds no room."
            raise QueueFull(message, retry_after=1)
        taken.bytes += size
        self._held += size

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The body is larger than {self.limit} bytes.")


@dataclass(slots=True)
class _Taken:
    """How much of the memory for bodies one request has."""

    bytes: int = 0


async def _refuse(error: KronosError, scope: Scope, receive: Receive, send: Send) -> None:
    if isinstance(error, RequestTooLarge):
        metrics.SIZE_REJECTIONS.labels(caller_label(scope)).inc()
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
