"""Answers HEAD wherever GET is answered."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadMethod:
    """Have the router answer HEAD as it answers GET; the server sends no body.

    Some load balancers use it for health checks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            # A copy, because the server and the log need the original method, and the route.
            asked, scope = scope, {**scope, "method": "GET"}
            try:
                await self.app(scope, receive, send)
            finally:
                asked.update({**scope, "method": "HEAD"})
        else:
            await self.app(scope, receive, send)
