"""Heartbeats: how long a worker or an event loop has been silent.

Clocks go on while a machine stalls or a container is paused, and every process looks silent
afterwards. So time counts only while the process that checks was running itself, which Gunicorn's
own check ignores: it would kill every worker after a pause.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from kronos_api.telemetry import logging

CHECK_SECONDS: Final = 0.25
"""Seconds between two checks of heartbeats."""
MAX_STEP: Final = 1.0
"""Seconds that one interval between two checks counts at most."""

log = structlog.stdlib.get_logger(__name__)


class AwakeClock:
    """Seconds during which this process ran; `advance` must be called several times a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._advanced = clock()
        self.now = 0.0

    def advance(self) -> float:
        """The present time in seconds."""
        now = self._clock()
        self.now += min(now - self._advanced, MAX_STEP)
        self._advanced = now
        return self.now


class Heartbeats:
    """The last heartbeat of each process, by a clock of the caller."""

    def __init__(self) -> None:
        self._seen: dict[
            int, tuple[float, float]
        ] = {}  # by process: the heartbeat, and when it was first seen

    def silence(self, pid: int, beat: float, now: float) -> float:
        """Seconds since `beat`, the latest of process `pid`, was seen first."""
        known = self._seen.get(pid)
        if known is None or known[0] != beat:
            known = self._seen[pid] = beat, now
        return now - known[1]

    def drop(self, pid: int) -> None:
        """Drop process `pid`, which has ended."""
        self._seen.pop(pid, None)


class Watchdog:
    """Ends this process when its event loop gives no heartbeat for `timeout` seconds.

    For a process without a master. `end` is called with the exit status. Time in which the model
    loads does not count, because loading may hold the interpreter's lock.
    """

    def __init__(
        self,
        timeout: float,
        status: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._timeout = timeout
        self._status = status
        self._clock = AwakeClock(clock)
        self._beats = 0
        self._heartbeats = Heartbeats()
        self._end = end
        self._loading: Callable[[], bool] = lambda: False
        self._stopped = threading.Event()

    def start(self, loading: Callable[[], bool]) -> None:
        """Start a thread that checks; it calls `loading` to learn whether the model loads."""
        self._loading = loading
        threading.Thread(target=self._main, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        """Give a heartbeat."""
        self._beats += 1

    def stop(self) -> None:
        """Stop checking."""
        self._stopped.set()

    def check(self) -> bool:
        """End the process if the loop is silent for too long; whether it is not."""
        if self._loading():
            self.beat()
        silence = self._heartbeats.silence(os.getpid(), self._beats, self._clock.advance())
        if silence <= self._timeout:
            return True
        log.critical("event_loop_stalled", seconds=round(silence, 1), setting="GUNICORN_TIMEOUT")
        logging.flush()
        self._end(self._status)
        return False

    def _main(self) -> None:
        while not self._stopped.wait(CHECK_SECONDS) and self.check():
            pass
