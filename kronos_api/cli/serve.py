"""`kronos-api serve`: the HTTP service in this process."""

from __future__ import annotations

import math
import signal
import socket
from typing import Final, NoReturn

import typer

from kronos_api.cli.console import one_line_errors
from kronos_api.config import load_settings
from kronos_api.errors import StartupError

NOT_STARTED: Final = 3
"""Exit status when the service ended before it listened; its last log line says why."""


def serve() -> None:
    """Start the HTTP service. Settings are the environment's KRONOS_ variables."""
    # Once it has shut down in order, the server raises the signal again: that is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)

    from kronos_api.telemetry.logging import configure

    configure()
    with one_line_errors():
        settings = load_settings()
        listener = bind(settings.host, settings.port)

    import uvicorn

    from kronos_api.app import create_app

    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout),
    )
    server = uvicorn.Server(config)
    with listener:
        server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(NOT_STARTED)


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the port but does not listen yet; raises `StartupError` if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio turns off the delay of small packets only where it sees TCP by name.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise StartupError(
            f"cannot listen on {host} port {port}: {reason};"
            " KRONOS_HOST and KRONOS_PORT choose another"
        ) from None
    return listener
