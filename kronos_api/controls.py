"""Orders of the operator to a running service: drain, log level, blocked callers.

A command writes an order as a file of the control directory; each process of the service reads the
directory about every second. Files work for all workers and for the master, need no port and no
right to send signals, and the directory is in memory, where a read-only root allows it. Orders hold
until the service starts again.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from kronos_api.telemetry.slots import make_directory

EVERY: Final = 1.0
"""Seconds between two looks at the orders."""
MEMORY: Final = Path("/dev/shm")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DRAIN, LOG_LEVEL, BLOCKED = "drain", "log-level", "blocked"
"""Names of the files."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Orders:
    """What the operator has ordered.

    log_level: instead of the configured one. drained: whether new forecasts are refused. blocked:
    names of callers that are refused.
    """

    log_level: str | None = None
    drained: bool = False
    blocked: frozenset[str] = frozenset()


def control_directory(parent: Path | None, port: int) -> Path:
    """The directory of the service at `port`, in `parent`, by default in memory."""
    if parent is None:
        parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"kronos-control-{os.getuid()}-{port}"


class Controls:
    """The orders in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.orders = Orders()

    def reset(self) -> None:
        """At the start of the service: remove the orders to the one before.

        Without a directory that can be written to, the service starts, and takes no orders.
        """
        try:
            make_directory(self.directory)
            for name in (DRAIN, LOG_LEVEL, BLOCKED):
                (self.directory / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning(
                "control_directory_unavailable",
                directory=str(self.directory),
                reason=error.strerror,
                setting="KRONOS_CONTROL_DIR",
            )

    def read(self) -> Orders:
        """The orders of now; the previous ones if the directory was removed or belongs to others.

        Something that cleans up must not let a blocked caller in.
        """
        try:
            if self.directory.lstat().st_uid == os.getuid():
                level = self._text(LOG_LEVEL).strip()
                self.orders = Orders(
                    log_level=level if level in LEVELS else None,
                    drained=(self.directory / DRAIN).exists(),
                    blocked=frozenset(self._text(BLOCKED).splitlines()),
                )
        except (OSError, ValueError):
            pass
        return self.orders

    async def follow(self, apply: Callable[[Orders], None]) -> None:
        """Call `apply` with the orders of now, and whenever they have changed, until cancelled."""
        applied = None
        while True:
            if (orders := self.read()) != applied:
                apply(orders)
                applied = orders
            await asyncio.sleep(EVERY)

    def write(self, name: str, text: str) -> None:
        """Give an order, whole at once; raises OSError."""
        make_directory(self.directory)
        unfinished = self.directory / f"{name}.new"
        unfinished.write_text(text, "utf-8")
        unfinished.replace(self.directory / name)

    def remove(self, name: str) -> None:
        """Withdraw an order; raises OSError."""
        (self.directory / name).unlink(missing_ok=True)

    def _text(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return (self.directory / name).read_text("utf-8")
        return ""
