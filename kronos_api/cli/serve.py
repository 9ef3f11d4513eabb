"""`kronos-api serve`: the HTTP service in this process."""

from __future__ import annotations

import resource
import signal
import socket
from typing import TYPE_CHECKING, Final, NoReturn

import typer

from kronos_api.cli.console import one_line_errors
from kronos_api.config import load_settings
from kronos_api.errors import StartupError

if TYPE_CHECKING:
    import uvicorn

NOT_STARTED: Final = 3
"""Exit status when the service ended before it listened; its last log line says why."""

CONNECTIONS: Final = 10_240
"""Open files that are asked of the system; many systems grant few unless asked."""


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
        from kronos_api.server.options import options
        from kronos_api.server.protocol import Deadlines

        # Made here even if only workers serve it: what is wrong with it is told once.
        app = create_app(settings)

    allow_connections()
    alone = settings.workers == 1
    config = uvicorn.Config(
        app if alone else "kronos_api.main:app",
        workers=settings.workers,
        **options(
            Deadlines(
                head=settings.header_timeout,
                body=settings.body_timeout,
                answer=settings.answer_timeout,
                idle=settings.idle_timeout,
            ),
            shutdown_timeout=settings.shutdown_timeout,
        ),
    )
    with listener:
        started = _serve_alone(config, listener) if alone else _serve_together(config, listener)
    if not started:
        raise typer.Exit(NOT_STARTED)


def _serve_alone(config: uvicorn.Config, listener: socket.socket) -> bool:
    """Serve until told to stop; whether it ever listened."""
    from uvicorn import Server

    server = Server(config)
    server.run(sockets=[listener])
    return server.started


def _serve_together(config: uvicorn.Config, listener: socket.socket) -> bool:
    """Serve with several workers on one `listener`; one that dies is replaced."""
    from uvicorn.supervisors import Multiprocess

    supervisor = Multiprocess(config, sockets=[listener])
    supervisor.run()
    return all(process.exitcode != NOT_STARTED for process in supervisor.processes)


def allow_connections() -> None:
    """Let this process have as many connections open as the system grants it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
