"""How long a client may take for each step, and the timers that hold it to that."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Wait = Literal["head", "body", "answer", "idle"]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How many seconds a client has."""

    head: float
    """For a request's line and headers, from the connection or from their first byte."""
    body: float
    """For a request's body, from the end of its head."""
    answer: float
    """For taking what is written to a connection that is full, or that is being closed."""
    idle: float
    """For the next request on a connection that is kept open."""


class Timer:
    """Calls a function later, once, outside the context of the request in which it was set."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """Whether the call is still to come."""
        return self._handle is not None

    def start(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Call in so many seconds; a call that was still to come is given up."""
        self.stop()

        def run() -> None:
            self._handle = None
            call(*args)

        self._handle = self._loop.call_later(seconds, run, context=contextvars.Context())

    def stop(self) -> None:
        """Give up a call that is still to come."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
