"""Bounds the number of requests in progress."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import QueueFull
from kronos_api.middleware.envelope import render
from kronos_api.telemetry.metrics import metrics


class Admission:
    """Refuse a request while `limit` others are in progress in this process.

    A request that waits for its body is not in progress, so slow callers do not keep others out.
    It is refused if the limit is reached by the time its body is complete.

    Paths in `exempt` are always answered and not counted: a probe must not fail because the
    service is busy.
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
            await self.app(scope, self._receiving(receive), send)
        finally:
            self._in_progress -= 1

    def _receiving(self, receive: Receive) -> Receive:
        """`receive` that does not count the request while it waits for its body.

        A body that has arrived already is received without a wait, so the request keeps its place.
        Raises `QueueFull` at the end of a body if the limit is reached.
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
        message = (
            f"{self.limit} of {self.limit} requests are in progress in this worker. Retry in 1 s, "
            "or raise GUNICORN_WORKER_CONNECTIONS (with --plain: KRONOS_LIMIT_CONCURRENCY)."
        )
        return QueueFull(message, retry_after=1)
