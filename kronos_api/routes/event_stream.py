"""Responses of server-sent events.

The status is sent with the first event or heartbeat. Until then an error is an ordinary response
with its own status; from then on it is an `error` event with the same envelope.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import orjson
import structlog
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kronos_api.errors import InternalError, KronosError
from kronos_api.telemetry.error_envelope import error_envelope

HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""A cache or nginx would hold events back."""

log = structlog.stdlib.get_logger(__name__)


class Events:
    """Sends events to one client."""

    def __init__(self, start: Callable[[], Awaitable[None]], send: Send) -> None:
        self._start = start
        self._send = send
        self.started = False
        """Whether the status is sent."""

    async def event(self, name: str, *data: bytes) -> None:
        """Send events of one `name`, each with its line of `data`."""
        await self._write(
            b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), one) for one in data)
        )

    async def heartbeat(self) -> None:
        """Send a comment, so that no proxy takes the connection for dead."""
        await self._write(b": heartbeat\n\n")

    async def end(self) -> None:
        """End the response."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, content: bytes) -> None:
        if not self.started:
            self.started = True
            await self._start()
        await self._send({"type": "http.response.body", "body": content, "more_body": True})


class EventStream(Response):
    """A response whose events `produce` sends; it may raise `KronosError`, `ClientDisconnect`."""

    media_type = "text/event-stream"

    def __init__(self, produce: Callable[[Events], Awaitable[None]]) -> None:
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self.body = b""
        self._produce = produce
        self.init_headers(HEADERS)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; raises the errors of `produce` until the status is sent."""
        del receive

        async def start() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        events = Events(start, send)
        try:
            await self._produce(events)
        except Exception as error:
            if not events.started:
                raise
            if isinstance(error, ClientDisconnect):
                return
            if not isinstance(error, KronosError):
                log.exception("unhandled_exception")
                error = InternalError()
            await events.event("error", orjson.dumps(error_envelope(error, scope)))
        await events.end()
