"""Requests of the service's own routes, within this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope

from kronos_api.errors import GONE
from kronos_api.middleware.envelope import Envelope
from kronos_api.middleware.rate_limit import RateLimit
from kronos_api.ratelimit.charge import CountedBy
from kronos_api.ratelimit.limiter import Limiter
from kronos_api.ratelimit.other_routes import OtherLimiter

LOCAL: Final[Scope] = {
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "http",
    "client": None,
    "server": None,
}
"""What the request of a caller without HTTP has instead."""
DISCONNECTED: Final = "mcp_disconnected"
"""Name in the state of a request whose client has disconnected."""
JSON: Final = [(b"content-type", b"application/json")]


def local_app(
    routers: Iterable[APIRouter],
    handlers: Mapping[Any, Callable[..., Any]],
    limiter: Limiter | None,
    others: OtherLimiter,
    *,
    by: CountedBy,
) -> FastAPI:
    """The routes of `routers` with the limits of callers, for requests within this process.

    The caller and its request have passed all other middleware, or are in this process themselves.
    """
    app = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(RateLimit, limiter=limiter, others=others, by=by),
            Middleware(Envelope),
        ],
        exception_handlers=dict(handlers),
    )
    app.state.limiter = others
    for router in routers:
        app.include_router(router)
    return app


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a route: `retry_after` in seconds where the headers say so."""

    status: int
    content: bytes
    retry_after: int | None


class Routes:
    """Sends requests to `app`, the routes of the service and the limits that hold for them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def get(self, path: str, caller: Scope) -> Answer:
        """The response to a GET of `caller`, a scope with the state of its own request."""
        return await self._answer("GET", path, b"", caller, _never)

    async def post(self, path: str, body: bytes, caller: Scope, receive: Receive | None) -> Answer:
        """The response to a POST of JSON; it is cancelled if `receive` reports a disconnect."""
        return await self._answer("POST", path, body, caller, receive or _never)

    async def _answer(
        self, method: str, path: str, body: bytes, caller: Scope, receive: Receive
    ) -> Answer:
        kept = {name: caller.get(name, default) for name, default in LOCAL.items()}
        request: Scope = kept | {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": JSON,
            # The same object: the limits keep there what they have counted for the caller.
            "state": caller.setdefault("state", {}),
        }
        start: dict[str, Any] = {}
        content = bytearray()

        async def collected(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                content.extend(message.get("body", b""))

        await self.app(request, replayed(body, receive), collected)
        if start["status"] == GONE:
            request["state"][DISCONNECTED] = True
        wait = dict(start["headers"]).get(b"retry-after")
        return Answer(start["status"], bytes(content), int(wait) if wait else None)


def replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` of a request whose `body` has been read already."""
    given = False

    async def received() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
