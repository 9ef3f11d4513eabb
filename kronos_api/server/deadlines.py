"""The deadlines of a client's steps, and the timers that enforce them.

uvicorn has one for idle connections alone: without the others, stalled clients hold sockets
forever.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from kronos_api.errors import RequestTimeout
from kronos_api.telemetry.metrics import metrics
from kronos_api.telemetry.previous_names import previous_value

log = structlog.stdlib.get_logger(__name__)

Step = Literal["headers", "body", "send", "idle"]
SETTINGS: Final[dict[Step, str]] = {
    "headers": "KRONOS_HEADER_TIMEOUT",
    "body": "KRONOS_BODY_TIMEOUT",
    "send": "KRONOS_SEND_TIMEOUT",
    "idle": "GUNICORN_KEEPALIVE",
}


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a client has for each step."""

    headers: float
    """For a request's line and headers, from the connection or from their first byte."""
    body: float
    """For a request's body, from the end of its headers."""
    send: float
    """For taking the response, while the connection's send buffer is full or it is being closed."""
    idle: float
    """For the next request on a connection that is kept open."""

    def timeout(self, step: Step) -> RequestTimeout:
        """The error of a request that was not complete at the deadline of `step`."""
        seconds: float = getattr(self, step)
        return RequestTimeout(
            f"The request was not complete after {seconds:g} s. Send it faster, or raise"
            f" {SETTINGS[step]}."
        )


def count_slow_caller(step: Step, peer: str | None) -> None:
    """Count and log that `peer` missed the deadline of `step`."""
    metrics.slow_callers.labels(step).inc()
    log.warning("slow_caller", deadline=step, waited_for=previous_value(step), peer=peer)


class Timer:
    """Calls a function later, once, outside the context of the request that started it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """Whether the call is pending."""
        return self._handle is not None

    def start(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Call `call(*args)` in `seconds`; a pending call is cancelled."""
        self.stop()

        def run() -> None:
            self._handle = None
            call(*args)

        self._handle = self._loop.call_later(seconds, run, context=contextvars.Context())

    def stop(self) -> None:
        """Cancel a pending call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class StepTimer:
    """The deadline of the step that a client has to take next; calls `missed` with that step."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        missed: Callable[[Step], None],
    ) -> None:
        self._timer = Timer(loop)
        self._deadlines = deadlines
        self._missed = missed
        self._running: tuple[Step, object] | None = None

    def start(self, step: Step, request: object = None) -> None:
        """Start the deadline of `step` of `request`, unless it runs: each step has one."""
        if self._running == (step, request):
            return
        self.stop()
        self._running = step, request
        self._timer.start(getattr(self._deadlines, step), self._expire, step)

    def stop(self) -> None:
        """Stop: the client has nothing to do now."""
        self._running = None
        self._timer.stop()

    def _expire(self, step: Step) -> None:
        self._running = None
        self._missed(step)
