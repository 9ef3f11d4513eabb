"""Answers HEAD wherever GET is answered."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadMethod:
    """Have the router answer HEAD as it answers GET; the server sends no body.

    Balancers ask whether a service lives by it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            # A copy: the server and the log go on seeing what was asked, and where it was found.
            asked, scope = scope, {**scope, "method": "GET"}
            try:
                await self.app(scope, receive, send)
            finally:
                asked.update({**scope, "method": "HEAD"})
        else:
            await self.app(scope, receive, send)
