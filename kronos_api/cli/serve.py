"""`kronos-api serve`: starts the HTTP service."""

from __future__ import annotations

import os
import resource
import signal
import socket
from typing import Annotated, Final, NoReturn

import structlog
import typer

from kronos_api.cli.console import one_line_errors
from kronos_api.config import Settings, load_settings
from kronos_api.server.listener import cannot_listen
from kronos_api.telemetry.logging import configure

CONNECTIONS: Final = 10_240
"""Open files to ask the system for; the default limit is often 1,024."""

RELOAD_GRACE: Final = 1
"""Seconds for requests in progress when the source changes."""

log = structlog.stdlib.get_logger(__name__)


def serve(
    plain: Annotated[
        bool, typer.Option("--plain", help="One process without Gunicorn, for containers.")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="One process, restarted when the source changes.")
    ] = False,
) -> None:
    """Start the HTTP service.

    Settings are the KRONOS_ and GUNICORN_ variables of the environment, or else of the file .env in
    the working directory.
    """
    # Before the server installs its handlers, and after it has shut down.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)

    configure()
    with one_line_errors():
        settings = load_settings()
        configure(settings.log_level, settings.log_format, settings.replica_name)
        listener = bind(settings.host, settings.port)

    allow_connections()
    if reload:
        _serve_reloading(settings, listener)
    elif plain:
        _serve_plain(settings, listener)
    else:
        _serve_workers(settings, listener)


def _serve_workers(settings: Settings, listener: socket.socket) -> None:
    """Serve with Gunicorn's workers; ends with SystemExit."""
    if os.environ.get("GUNICORN_CMD_ARGS"):
        log.warning(
            "setting_ignored",
            setting="GUNICORN_CMD_ARGS",
            hint="set GUNICORN_WORKERS and the other GUNICORN_ variables",
        )

    from kronos_api.app import create_app
    from kronos_api.capacity import workers
    from kronos_api.launch import announce, gunicorn_options, share_metrics, take_orders
    from kronos_api.lifecycle import preload
    from kronos_api.server.application import Application

    with one_line_errors():
        share_metrics(settings)
        # Made here although only workers serve it, so that an error is reported once.
        create_app(settings)
        preload()
    count = workers(settings)
    announce(settings, count)
    maintain = take_orders(settings)
    Application(
        lambda: create_app(settings, workers=count),
        gunicorn_options(settings),
        listener,
        settings.startup_timeout,
        maintain=maintain,
    ).run()


def _serve_plain(settings: Settings, listener: socket.socket) -> None:
    """Serve in this process until stopped, or for LIMIT_MAX_REQUESTS requests."""
    import uvicorn

    from kronos_api.app import create_app
    from kronos_api.launch import announce, take_orders, uvicorn_options
    from kronos_api.server.exit import NOT_STARTED
    from kronos_api.server.heartbeats import Watchdog
    from kronos_api.server.server import Server

    with one_line_errors():
        app = create_app(settings)
    announce(settings, workers=1)
    take_orders(settings)
    config = uvicorn.Config(
        app,
        limit_max_requests=settings.limit_max_requests,
        limit_max_requests_jitter=settings.limit_max_requests_jitter,
        **uvicorn_options(settings),
    )
    watchdog = Watchdog(settings.timeout, NOT_STARTED) if settings.timeout else None
    server = Server(config, watchdog=watchdog)
    server.run(sockets=[listener])
    server.end()


def _serve_reloading(settings: Settings, listener: socket.socket) -> None:
    """Serve in a process that is restarted whenever the source changes."""
    from pathlib import Path

    import uvicorn
    from uvicorn.supervisors import ChangeReload

    from kronos_api.launch import uvicorn_options

    with one_line_errors():
        try:
            listener.listen()
        except OSError as error:
            raise cannot_listen(settings.host, settings.port, error) from None
    config = uvicorn.Config(
        "kronos_api.main:app",
        reload=True,
        reload_dirs=[str(Path(__file__).resolve().parents[1])],
        **uvicorn_options(settings) | {"timeout_graceful_shutdown": RELOAD_GRACE},
    )
    ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listener]).run()


def allow_connections() -> None:
    """Raise this process's limit of open files as far as the system grants it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _exit(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; raises `StartupError` if the port is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By name, because asyncio sets TCP_NODELAY only where the protocol is IPPROTO_TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise cannot_listen(host, port, error) from None
    return listener
