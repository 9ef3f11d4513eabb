"""How long a worker or an event loop has been silent, judged fairly.

When a machine stalls or a container is paused, all clocks go on while nothing runs, and everything
looks silent afterwards. Time therefore counts only as far as the process that judges was running.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from kronos_api.telemetry import logging

LOOK: Final = 0.25
"""Seconds between two looks at those that should give heartbeats."""
LONGEST_STEP: Final = 1.0
"""Seconds that one interval between two looks counts at most."""

log = structlog.stdlib.get_logger(__name__)


class AwakeClock:
    """Seconds during which this process ran; `look` has to be called several times a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self.now = 0.0

    def look(self) -> float:
        """The time now."""
        now = self._clock()
        self.now += min(now - self._looked, LONGEST_STEP)
        self._looked = now
        return self.now


class Heartbeats:
    """When each worker gave its last heartbeat, by a clock of the caller."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, float]] = {}  # by process: the beat, and when seen first

    def silence(self, pid: int, beat: float, now: float) -> float:
        """Seconds since `beat`, the last one of process `pid`, was seen for the first time."""
        known = self._seen.get(pid)
        if known is None or known[0] != beat:
            known = self._seen[pid] = beat, now
        return now - known[1]

    def forget(self, pid: int) -> None:
        """Process `pid` has ended."""
        self._seen.pop(pid, None)


class Watchdog:
    """Ends this process when its event loop gives no `beat` for `timeout` seconds.

    For a process without a master. `end` is called with the exit status. The time in which the
    model loads does not count: loading may hold the interpreter's lock.
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
        """Watch from now on; `loading` says in the watchdog's thread whether the model loads."""
        self._loading = loading
        threading.Thread(target=self._main, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        """Say that the loop runs."""
        self._beats += 1

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def look(self) -> bool:
        """Whether the loop lives; if not, the process has been ended."""
        if self._loading():
            self.beat()
        silence = self._heartbeats.silence(os.getpid(), self._beats, self._clock.look())
        if silence <= self._timeout:
            return True
        log.critical("event_loop_stalled", seconds=round(silence, 1), setting="GUNICORN_TIMEOUT")
        logging.flush()
        self._end(self._status)
        return False

    def _main(self) -> None:
        while not self._stopped.wait(LOOK) and self.look():
            pass
