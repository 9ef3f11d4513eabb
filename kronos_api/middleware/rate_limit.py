"""Bounds how many forecasts a caller may ask for."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import RateLimited
from kronos_api.middleware.callers import caller_key, caller_label
from kronos_api.middleware.envelope import render
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.visit import STATE, Visit

PREFIX: Final = "/v1/predict/"
SAFE: Final = ("GET", "HEAD", "OPTIONS")


class RateLimit:
    """Grant or refuse every request below `/v1/predict/`, before its body is read.

    Only safe methods are not counted: they forecast nothing, and a web page can have a browser
    send them from anywhere.

    The path decides, not the route: what will be routed there later, or not at all, counts as
    well. Where the application is mounted does not matter. What more the items of a batch cost is
    charged when they are known, through `scope["state"]`.
    """

    def __init__(self, app: ASGIApp, *, limiter: Limiter | None, by_items: bool = True) -> None:
        self.app = app
        self.limiter = limiter
        self.by_items = by_items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            self.limiter is None
            or scope["type"] != "http"
            or PREFIX not in scope["path"]
            or scope["method"] in SAFE
        ):
            await self.app(scope, receive, send)
            return
        visit = Visit(
            self.limiter,
            caller=caller_key(scope),
            label=caller_label(scope),
            route=scope["path"].rpartition(PREFIX)[2],
            by_items=self.by_items,
        )
        scope.setdefault("state", {})[STATE] = visit

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(visit.headers())
            await send(message)

        try:
            await visit.charge(1)
        except RateLimited as error:
            await render(error, scope)(scope, receive, send_counted)
            return
        await self.app(scope, receive, send_counted)
