"""Bounds the forecasts of a caller, and adds the state of its quota to responses."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders, State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import RateLimited
from kronos_api.middleware.callers import caller_key, caller_label
from kronos_api.middleware.envelope import render
from kronos_api.ratelimit.charge import STATE, Charge, CountedBy, quota_headers
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.other_routes import OtherLimiter

PREFIX: Final = "/v1/predict/"
REFUSED: Final = 503
"""Status of a request that was refused for want of capacity: nothing was decoded."""
SAFE: Final = ("GET", "HEAD", "OPTIONS")


class RateLimit:
    """Grant or refuse every request below `/v1/predict/`, before its body is read.

    Safe methods are not counted: they forecast nothing, and any web page can have a browser send
    them.

    The path decides, not the route: a path without a route counts as well, wherever the application
    is mounted. The handler charges the rest of the cost, which depends on the series, through
    `scope["state"]`. A request that is refused with 503 (no model yet, queue full, draining) costs
    nothing, because the gateway or the caller retries it.

    Other routes are granted or refused by `others`, which decorates them; this middleware adds the
    same headers to their responses.
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
        charge = Charge(
            self.limiter,
            caller=caller_key(scope),
            label=caller_label(scope),
            route=scope["path"].rpartition(PREFIX)[2],
            by=self.by,
        )
        scope.setdefault("state", {})[STATE] = charge

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == REFUSED:
                    await charge.give_back()
                charge.count()
                MutableHeaders(scope=message).update(charge.headers())
            await send(message)

        try:
            await charge.add(1)
        except RateLimited as error:
            await render(error, scope)(scope, receive, send_counted)
            return
        try:
            await self.app(scope, receive, send_counted)
        finally:
            charge.count()  # of a request without a response, whose caller has left

    def _with_other_quota(self, scope: Scope, send: Send) -> Send:
        """`send` that adds the state of the quota of other routes, if the request counted."""
        others = self.others
        if others is None:
            return send

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                verdict = others.verdict(State(scope.get("state")))
                MutableHeaders(scope=message).update(quota_headers(verdict))
            await send(message)

        return send_counted
