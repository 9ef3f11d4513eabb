"""`kronos-api check`: would a service start with these settings?"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kronos_api.cli.console import log_to_stderr, note, one_line_errors
from kronos_api.config import Settings, load_settings
from kronos_api.daemon_thread import run_in_daemon_thread
from kronos_api.errors import StartupError

if TYPE_CHECKING:
    from kronos_api.checkpoints.info import ModelInfo
    from kronos_api.lifecycle import Lifecycle


def check() -> None:
    """Check settings, directories, device and checkpoints as a start does.

    Exit status 1: the service would not start. Settings are those of .env and the environment. The
    weights are loaded and tried with one small forecast, within KRONOS_STARTUP_TIMEOUT. The port
    is not opened, so a service may be running. A model named by hub id is fetched if it is not
    present.
    """
    log_to_stderr()
    with one_line_errors():
        settings = load_settings(note)

        from kronos_api.lifecycle import too_late
        from kronos_api.server.exit import exit_at_once

        try:
            starting = run_in_daemon_thread(lambda: _start(settings), "check")
            info = starting.result(settings.startup_timeout)
        except TimeoutError:
            note(str(too_late(settings, "checked and loaded")))
            exit_at_once(1)
    typer.echo(
        f"kronos-api: settings are valid; {info.model.id} and {info.tokenizer.id} load and forecast"
        f" on {info.device}"
    )


def _start(settings: Settings) -> ModelInfo:
    """Start all parts but the server; raises `StartupError` where a start would."""
    from kronos_api.app import create_app
    from kronos_api.lifecycle import Lifecycle

    create_app(settings)
    service = Lifecycle(settings, None)
    if settings.metrics_dir is not None:
        _try_directory(settings.metrics_dir)
    if service.limiter is not None:
        asyncio.run(_try_limiter(service))
    assert service.checkpoints is not None
    service.checkpoints.find()
    try:
        return service.checkpoints.load().info
    except StartupError:
        raise
    except Exception as failure:  # for example memory, a driver, a damaged file
        lines = str(failure).splitlines() or [type(failure).__name__]
        raise StartupError(f"the model could not be loaded: {lines[0]}") from None


def _try_directory(directory: Path) -> None:
    from kronos_api.telemetry.slots import cannot_write

    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise cannot_write(directory, error) from None


async def _try_limiter(service: Lifecycle) -> None:
    assert service.limiter is not None
    await service.limiter.start()
    await service.limiter.stop()
