"""Bounds how many requests are in progress."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import QueueFull
from kronos_api.middleware.envelope import render
from kronos_api.telemetry import metrics


class Admission:
    """Refuse a request while `limit` others are in progress in this process.

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
            metrics.ADMISSION_REFUSALS.inc()
            error = QueueFull(
                f"{self._in_progress} requests are in progress, as many as may be.", retry_after=1
            )
            await render(error, scope)(scope, receive, send)
            return
        self._in_progress += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._in_progress -= 1
