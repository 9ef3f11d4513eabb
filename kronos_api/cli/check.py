"""`kronos-api check`: would a service start with these settings?"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from kronos_api.cli.console import log_to_stderr, note, one_line_errors
from kronos_api.config import Settings, load_settings
from kronos_api.errors import StartupError

if TYPE_CHECKING:
    from kronos_api.checkpoints.loader import ModelInfo
    from kronos_api.lifecycle import Lifecycle

Result = TypeVar("Result")


def check() -> None:
    """Check settings, folders, device and checkpoints as a start does. Exit status 1: bad.

    Settings are those of .env and the environment. The weights are loaded and tried with one small
    forecast, within KRONOS_STARTUP_TIMEOUT; only the port is left alone, so that a running service
    is no fault. A model that is named by hub id is fetched if it is not here.
    """
    log_to_stderr()
    with one_line_errors():
        settings = load_settings(note)

        from kronos_api.lifecycle import too_late
        from kronos_api.server.server import exit_at_once

        try:
            info = in_time(lambda: _start(settings), settings.startup_timeout)
        except TimeoutError:
            note(str(too_late(settings, "checked and loaded")))
            exit_at_once(1)
    typer.echo(
        f"kronos-api: the settings are good, and so are {info.model.id} and {info.tokenizer.id}"
        f" on {info.device}"
    )


def in_time(work: Callable[[], Result], seconds: float) -> Result:
    """The outcome of `work`, which is done in a thread; raises `TimeoutError`."""
    outcome: list[Result | Exception] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as failure:
            outcome.append(failure)

    # A daemon: reading from a file system that is gone must not keep the process alive.
    thread = threading.Thread(target=run, name="check", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _start(settings: Settings) -> ModelInfo:
    """Start everything but the server; raises `StartupError` where a start would."""
    from kronos_api.app import create_app
    from kronos_api.lifecycle import Lifecycle

    create_app(settings)
    service = Lifecycle(settings, None)
    if settings.metrics_dir is not None:
        _try_folder(settings.metrics_dir)
    if service.limiter is not None:
        asyncio.run(_try_limiter(service))
    assert service.checkpoints is not None
    service.checkpoints.find()
    try:
        return service.checkpoints.load().info
    except StartupError:
        raise
    except Exception as failure:  # of many kinds: memory, a driver, a damaged file
        lines = str(failure).splitlines() or [type(failure).__name__]
        raise StartupError(f"the model could not be loaded: {lines[0]}") from None


def _try_folder(folder: Path) -> None:
    from kronos_api.telemetry.slots import cannot_keep

    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise cannot_keep(folder, error) from None


async def _try_limiter(service: Lifecycle) -> None:
    assert service.limiter is not None
    await service.limiter.start()
    await service.limiter.stop()
