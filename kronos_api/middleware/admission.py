"""Bounds how many requests are in progress."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import QueueFull
from kronos_api.middleware.envelope import render
from kronos_api.telemetry.metrics import metrics


class Admission:
    """Refuse a request while `limit` others are in progress in this process.

    A request that waits for its body is not in progress: slow callers keep nobody else out. It
    may find no place any more when its body is in, and is refused then.

    Paths in `exempt` are always answered and count for nothing: what asks whether the service
    lives must not be told that it is busy.
    """

    def __init__(self, app: ASGIApp, *, limit: int, exempt: Collection[str] = ()) -> None:
        self.app = app
        self.limit = limit
        self.exempt = frozenset(exempt)
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        if self._in_progress >= self.limit:
            await render(self._full(), scope)(scope, receive, send)
            return
        self._in_progress += 1
        try:
            await self.app(scope, self._beside(receive), send)
        finally:
            self._in_progress -= 1

    def _beside(self, receive: Receive) -> Receive:
        """`receive` for which a request leaves its place while it waits for its body.

        A body that has come already is received without a wait, so nobody can take the place.
        Raises `QueueFull` with the end of a body whose request finds no place.
        """
        whole = False

        async def received() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            self._in_progress -= 1
            try:
                message = await receive()
            finally:
                self._in_progress += 1
            whole = not message.get("more_body", False)
            if whole and message["type"] == "http.request" and self._in_progress > self.limit:
                raise self._full()
            return message

        return received

    def _full(self) -> QueueFull:
        metrics.admission_refusals.inc()
        message = f"{self.limit} requests are in progress, as many as may be."
        return QueueFull(message, retry_after=1)
