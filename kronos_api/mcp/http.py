"""`/mcp`: the tools over streamable HTTP.

Each request stands by itself: there is no session that only one worker knows, and the response is
JSON, no stream of events. A caller cancels a call by closing its connection.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from fastapi import APIRouter, Request, Response
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.errors import GONE, RequestTooLarge
from kronos_api.mcp import MCP_PATH
from kronos_api.mcp.routes import DISCONNECTED, replayed
from kronos_api.mcp.server import LOG_FIELDS, build_server
from kronos_api.middleware.callers import caller_label
from kronos_api.ratelimit.other_routes import Limited
from kronos_api.telemetry.metrics import metrics

LARGEST: Final = 2**21
"""Bytes of a body at most: the largest series has a third of them. The package parses bodies on the
event loop."""


def router(routes: ASGIApp, limited: Limited) -> APIRouter:
    """`/mcp`, whose tools call `routes`; each request counts as one that is no forecast."""
    mounted = APIRouter(include_in_schema=False)
    server = build_server(routes)

    @mounted.post(MCP_PATH, name="mcp")
    @limited
    async def mcp(request: Request) -> Response:
        """One JSON-RPC message."""
        body = await request.body()
        if len(body) > LARGEST:
            metrics.size_rejections.labels(caller_label(request.scope)).inc()
            raise RequestTooLarge(
                f"The body has {len(body)} bytes; at most {LARGEST} are accepted at {MCP_PATH}."
                " Send fewer candles, or candles as columns."
            )
        return _Exchange(server, body)

    return mounted


class _Exchange(Response):
    """The response of `server` to one message."""

    def __init__(self, server: Server[Any], body: bytes) -> None:
        super().__init__()
        self.server = server
        self.message = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # One for each request: its tasks end with the request. Host and Origin are checked by the
        # middleware of the service.
        manager = StreamableHTTPSessionManager(
            self.server, json_response=True, stateless=True, max_request_body_size=LARGEST
        )

        async def send_logged(message: Message) -> None:
            structlog.contextvars.bind_contextvars(**scope["state"].pop(LOG_FIELDS, {}))
            if scope["state"].pop(DISCONNECTED, False):
                message["status"] = GONE  # for the log: no client receives it
            await send(message)

        async with manager.run():
            await manager.handle_request(scope, replayed(self.message, receive), send_logged)
