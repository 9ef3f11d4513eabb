"""The MCP server of the tools, whichever transport carries it."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

import structlog
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)
from starlette.types import ASGIApp

from kronos_api.errors import InternalError, KronosError
from kronos_api.mcp.routes import Routes
from kronos_api.mcp.tools import NAMES, Tools, definitions, failure
from kronos_api.middleware.envelope import render
from kronos_api.telemetry.metrics import metrics
from kronos_api.version import __version__

LOG_FIELDS: Final = "mcp_log_fields"
"""Name in the state of a request of the fields that its line in the access log has."""
UNKNOWN: Final = "unknown"
_SHOWN: Final = 100
_INSTRUCTIONS: Final = (
    "Forecasts of financial candles with the Kronos model. Call `forecast` with a history of"
    " candles; `calendars` lists the exchanges whose sessions it can keep to, `models` the loaded"
    " model. Forecasts are samples of a model, not advice."
)

Context = ServerRequestContext[Any, Any]

log = structlog.stdlib.get_logger(__name__)


def build_server(routes: ASGIApp) -> Server[Any]:
    """The server whose tools call `routes`, an application with the service's routes."""
    # It reports the start and the end of each request.
    logging.getLogger("mcp").setLevel(logging.ERROR)
    handlers = _Handlers(Tools(Routes(routes)))
    server: Server[Any] = Server(
        "kronos-api",
        version=__version__,
        title="Kronos API",
        instructions=_INSTRUCTIONS,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        get_tool_input_schema=handlers.schemas.get,
    )
    server.middleware.append(_observed)
    return server


class _Handlers:
    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.definitions = definitions()
        self.schemas = {one.name: one.input_schema for one in self.definitions}

    async def list_tools(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        del context, params
        return ListToolsResult(tools=self.definitions)

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        name = params.name if params.name in NAMES else UNKNOWN
        structlog.contextvars.bind_contextvars(tool=name)
        if name == UNKNOWN:
            metrics.tool_calls.labels(name, "error").inc()
            raise MCPError(
                INVALID_PARAMS,
                f"There is no tool {params.name[:_SHOWN]!a}; tools are {', '.join(NAMES)}.",
            )
        result = await self._answer(name, params.arguments or {}, context)
        metrics.tool_calls.labels(name, "error" if result.is_error else "ok").inc()
        return result

    async def _answer(
        self, name: str, arguments: dict[str, Any], context: Context
    ) -> CallToolResult:
        """The result of a tool; a refusal and an unhandled exception are results as well."""
        caller = {} if context.request is None else context.request.scope
        receive = context.request.receive if context.request is not None else None
        try:
            return await self.tools.call(name, arguments, caller, receive)
        except KronosError as error:
            known = error
        except Exception:
            log.exception("unhandled_exception", tool=name)
            known = InternalError()
        return failure(json.loads(bytes(render(known, caller).body)))


async def _observed(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Keep the fields that the handling of a message binds, for the log line of its request.

    The package handles some messages in a task of their own, whose context ends with it.
    """
    structlog.contextvars.bind_contextvars(mcp_method=ctx.method[:_SHOWN])
    try:
        return await call_next(ctx)
    finally:
        if ctx.request is not None:
            fields = structlog.contextvars.get_contextvars()
            ctx.request.scope.setdefault("state", {})[LOG_FIELDS] = fields
