"""`kronos-api drain`, `log-level` and `block`: orders to the service that runs here."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Annotated, Final, Literal
from urllib.request import ProxyHandler, build_opener

import typer

from kronos_api.cli.console import note, one_line_errors
from kronos_api.config import Settings, load_settings
from kronos_api.controls import BLOCKED, DRAIN, LOG_LEVEL, Controls, control_directory
from kronos_api.errors import StartupError

PAUSE: Final = 0.25
STALE: Final = 1.2
"""Seconds after which every worker has recorded its load again."""
ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

Undo = Annotated[bool, typer.Option("--undo", help="Withdraw the order.")]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def drain(
    undo: Undo = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for accepted forecasts.")] = 90.0,
) -> None:
    """Have the service here refuse new forecasts, and wait until accepted ones have ended.

    Readiness is 503 and new forecasts get 503, until `--undo` or a restart. Exit status 1: accepted
    forecasts have not ended in time, and go on.
    """
    with ordering() as (controls, settings):
        if undo:
            controls.remove(DRAIN)
            typer.echo("Not drained any more: forecasts are accepted within 2 s.")
            return
        controls.write(DRAIN, "")
        if not _until(lambda: _is_drained(settings), timeout):
            raise StartupError(
                f"drained, but forecasts are still in progress after {timeout:g} s. Ask again, or"
                " withdraw it: kronos-api drain --undo"
            )
        typer.echo("Drained: new forecasts get 503, and no forecast is in progress.")


def log_level(
    level: Annotated[Level | None, typer.Argument(help="Lowest level that is logged.")] = None,
    undo: Undo = False,
) -> None:
    """Change the lowest level that the service here logs, until `--undo` or a restart."""
    with ordering() as (controls, settings):
        if undo:
            controls.remove(LOG_LEVEL)
            typer.echo(f"Log level {settings.log_level} within 2 s, as KRONOS_LOG_LEVEL says.")
        elif level is None:
            typer.echo(controls.read().log_level or settings.log_level)
        else:
            controls.write(LOG_LEVEL, level)
            typer.echo(f"Log level {level} within 2 s.")


def block(
    name: Annotated[str | None, typer.Argument(help="`container_name` of its log lines.")] = None,
    undo: Undo = False,
) -> None:
    """Refuse one caller with 403 at the service here, until `--undo` or a restart.

    NAME: the caller's container, its entry of the whitelist, or its address. Without NAME, the
    blocked callers are listed.
    """
    with ordering() as (controls, _):
        blocked = set(controls.read().blocked)
        if name is None:
            if undo:
                raise StartupError("NAME is missing, such as: kronos-api block --undo shop")
            typer.echo("\n".join(sorted(blocked)) or "No caller is blocked.")
            return
        if not name.strip() or not name.isprintable():
            raise StartupError("NAME must be a name or an address, such as shop or 10.0.0.7")
        blocked = blocked - {name} if undo else blocked | {name}
        controls.write(BLOCKED, "".join(f"{one}\n" for one in sorted(blocked)))
        typer.echo(f"{name} is {'allowed' if undo else 'refused with 403'} within 2 s.")


@contextmanager
def ordering() -> Iterator[tuple[Controls, Settings]]:
    """The orders to the service that listens here; errors become one line."""
    with one_line_errors():
        settings = load_settings(note)
        try:
            socket.create_connection((_host(settings), settings.port), 5).close()
        except OSError:
            raise StartupError(
                f"no service listens at port {settings.port} (KRONOS_PORT). Run this command where"
                " the service runs: docker compose exec kronos-api kronos-api ..."
            ) from None
        controls = Controls(control_directory(settings.control_dir, settings.port))
        try:
            yield controls, settings
        except OSError as error:
            raise StartupError(
                f"cannot write to {controls.directory}: {error.strerror} (KRONOS_CONTROL_DIR)"
            ) from None


def _host(settings: Settings) -> str:
    return ANY_ADDRESS.get(settings.host, settings.host)


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True


def _is_drained(settings: Settings) -> bool:
    """Whether all workers are drained and no forecast is in progress, by the metrics."""
    if not _shows_idle(_metrics(settings)):
        return False
    time.sleep(STALE)  # the load can be older than the drain
    return _shows_idle(_metrics(settings))


def _metrics(settings: Settings) -> str:
    host = _host(settings)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/metrics"
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
            return str(answer.read(), "utf-8")
    except (OSError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StartupError(
            f"drained, but the forecasts in progress are unknown, because {url} cannot be read:"
            f" {reason}. Ask again: kronos-api drain"
        ) from None


def _shows_idle(text: str) -> bool:
    names = ("drained", "workers", "queue_depth", "active_series")
    values = dict(re.findall(rf"^kronos_({'|'.join(names)}) (\S+)$", text, re.M))
    drained, workers, *forecasts = (float(values.get(name, 0)) for name in names)
    return drained >= workers > 0 and not any(forecasts)
