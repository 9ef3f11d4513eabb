"""`kronos-api mcp`: the tools for agents over stdin and stdout."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from kronos_api.cli.console import log_to_stderr, note, one_line_errors
from kronos_api.config import load_settings
from kronos_api.mcp import mcp_installed

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

    from kronos_api.lifecycle import Lifecycle


def mcp() -> None:
    """Serve tools to an agent (Model Context Protocol) on stdin and stdout.

    The agent's program starts this command; the model runs in it, with the settings of the
    environment or of the file .env in the working directory. It ends when stdin ends.
    """
    with one_line_errors():
        with mcp_installed("kronos-api mcp serves tools by the Model Context Protocol"):
            from kronos_api.mcp.server import build_server

        from kronos_api.app import create_local

        log_to_stderr()
        service, routes = create_local(load_settings())
        server = build_server(routes)
        # Reading stdin cannot be interrupted.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        asyncio.run(_serve(service, server))


async def _serve(service: Lifecycle, server: Server[Any]) -> None:
    """Serve until stdin ends; raises `StartupError` if the model cannot be loaded."""
    from mcp.server.stdio import stdio_server

    await service.start()
    try:
        await service.predictor.ready()
        info = service.predictor.info
        assert info is not None
        note(f"{info.model.version} is ready on {info.device}; reading messages from stdin")
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        await service.stop()
