"""What a worker reports to its master, and what the master commands, in memory that both map.

Gunicorn's master learns of a worker by its heartbeat and exit status alone; starting a replacement
before a worker is retired needs more.
"""

from __future__ import annotations

import mmap
from enum import IntEnum


class Status(IntEnum):
    """The state of a worker, as it reports it."""

    STARTING = 0
    READY = 1
    """It has loaded the model and serves."""
    RECYCLE_REQUESTED = 2
    """It serves and asks to be replaced: after GUNICORN_MAX_REQUESTS, or after a SIGTERM."""
    STALLED = 3
    """Its engine makes no progress: it is not ready, and asks to be replaced."""
    STOPPED = 4
    """It has shut down; a worker that ends with another status has died."""


class Command(IntEnum):
    """What the master tells a worker to do."""

    NONE = 0
    RETIRE = 1
    """Drain: a replacement serves, and the service goes on."""
    STOP = 2
    """Drain: the service stops."""


class WorkerStatus:
    """One byte for each direction. A byte is written whole, so no lock is needed."""

    def __init__(self) -> None:
        self._bytes = mmap.mmap(-1, 2)

    @property
    def status(self) -> Status:
        """Written by the worker, read by the master."""
        return Status(self._bytes[0])

    @status.setter
    def status(self, status: Status) -> None:
        self._bytes[0] = status

    @property
    def command(self) -> Command:
        """Written by the master, read by the worker."""
        return Command(self._bytes[1])

    @command.setter
    def command(self, command: Command) -> None:
        self._bytes[1] = command
