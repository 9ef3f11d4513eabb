"""Bounds how many forecasts a caller may ask for, and says how its quota stands."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders, State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import RateLimited
from kronos_api.middleware.callers import caller_key, caller_label
from kronos_api.middleware.envelope import render
from kronos_api.ratelimit.charge import STATE, CountedBy, Visit, quota_headers
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.other_routes import OtherLimiter

PREFIX: Final = "/v1/predict/"
REFUSED: Final = 503
"""Status of a request that the service had no room for: nothing was computed."""
SAFE: Final = ("GET", "HEAD", "OPTIONS")


class RateLimit:
    """Grant or refuse every request below `/v1/predict/`, before its body is read.

    Only safe methods are not counted: they forecast nothing, and a web page can have a browser
    send them from anywhere.

    The path decides, not the route: what will be routed there later, or not at all, counts as
    well. Where the application is mounted does not matter. What more the series cost is charged
    when they are known, through `scope["state"]`. A request that is refused with 503 (no model yet,
    queue full, draining) costs nothing: the gateway or the caller tries it again.

    Other routes are granted or refused by `others`, which decorates them; here their answers get
    the same headers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: Limiter | None,
        others: OtherLimiter | None = None,
        by: CountedBy = "items",
    ) -> None:
        self.app = app
        self.limiter = limiter
        self.others = others
        self.by: CountedBy = by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.limiter is None or scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if PREFIX not in scope["path"]:
            await self.app(scope, receive, self._with_other_quota(scope, send))
            return
        if scope["method"] in SAFE:
            await self.app(scope, receive, send)
            return
        visit = Visit(
            self.limiter,
            caller=caller_key(scope),
            label=caller_label(scope),
            route=scope["path"].rpartition(PREFIX)[2],
            by=self.by,
        )
        scope.setdefault("state", {})[STATE] = visit

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == REFUSED:
                    await visit.give_back()
                MutableHeaders(scope=message).update(visit.headers())
            await send(message)

        try:
            await visit.charge(1)
        except RateLimited as error:
            await render(error, scope)(scope, receive, send_counted)
            return
        await self.app(scope, receive, send_counted)

    def _with_other_quota(self, scope: Scope, send: Send) -> Send:
        """`send` that adds how the quota of other routes stands, if the request counted."""
        others = self.others
        if others is None:
            return send

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                verdict = others.verdict(State(scope.get("state")))
                MutableHeaders(scope=message).update(quota_headers(verdict))
            await send(message)

        return send_counted
