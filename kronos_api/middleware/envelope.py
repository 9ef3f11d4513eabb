"""The one shape of every error, and the response to unhandled exceptions."""

from __future__ import annotations

import math

import structlog
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import InternalError, KronosError
from kronos_api.telemetry.error_envelope import error_envelope

log = structlog.stdlib.get_logger("kronos_api.errors")


def render(error: KronosError, scope: Scope) -> JSONResponse:
    """The response to `error`, counted by its code."""
    headers = {}
    if error.retry_after is not None or error.status == 503:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 1)))
    return JSONResponse(error_envelope(error, scope), status_code=error.status, headers=headers)


class Envelope:
    """Answer an unhandled exception with 500 and log its traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, send_watched)
        except Exception:
            log.exception("unhandled_exception")
            if started:  # a partial response must not look complete
                raise
            await render(InternalError(), scope)(scope, receive, send)
