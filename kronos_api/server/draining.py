"""Draining: every connection of a server gets its last response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from uvicorn.server import ServerState

TICK: Final = 0.05
"""Seconds between two looks at the open connections."""
ABORT_GRACE: Final = 1.0
"""Seconds that requests have to end once their connections are aborted."""

log = structlog.stdlib.get_logger(__name__)


class Drainable(Protocol):
    """The part of the service's lifecycle that the server needs."""

    @property
    def state(self) -> str:
        """One of: loading, ready, stalled, draining, failed."""
        ...

    @property
    def forecasts(self) -> int:
        """Series that wait for the model or are in it."""
        ...

    @property
    def ended(self) -> bool:
        """Whether all its threads have ended, once it has stopped."""
        ...

    def mark_unready(self, seconds: float | None = None) -> None:
        """Report not ready from here on, and limit the time of its stop to `seconds`."""
        ...


async def drain(state: ServerState, deadline: float, forced: Callable[[], bool]) -> None:
    """Return when all connections are closed, by their callers or after their last response.

    At `deadline` (of `time.monotonic`), or as soon as `forced()`, they are aborted.
    """
    connections, requests = state.connections, state.tasks
    while connections or requests:
        if forced() or time.monotonic() > deadline:
            log.warning("connections_aborted", connections=len(connections), requests=len(requests))
            for connection in list(connections):
                connection.transport.abort()
            break
        for connection in list(connections):
            connection.shutdown()
        await asyncio.sleep(TICK)
    if requests:  # they receive http.disconnect
        await asyncio.wait(requests, timeout=ABORT_GRACE)
