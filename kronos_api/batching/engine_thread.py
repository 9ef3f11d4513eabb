"""The engine's thread, and the only code that crosses between it and the event loop.

Tickets come from the event loop through an inbox; outcomes go back through their futures. The
scheduler and the engine belong to this thread, so no lock is held while the engine computes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Final

import structlog

from kronos_api.batching.refusals import shutting_down
from kronos_api.batching.scheduler import Scheduler
from kronos_api.batching.ticket import Ticket
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.errors import InternalError, StartupError
from kronos_api.memory import return_freed_memory

if TYPE_CHECKING:
    from kronos_api.engine.engine import Engine

RETURN_EVERY: Final = 10.0
"""Seconds between two returns of freed memory while the engine is busy; forecasts wait for each."""
RETURN_IDLE: Final = 1.0
"""Seconds without forecasts after which freed memory is returned."""

log = structlog.stdlib.get_logger(__name__)


class EngineThread:
    """Loads an engine and drives it until closed.

    Attributes:
        info: what is loaded; None until then.
        failure: why loading failed; None unless it did.
        loaded: set once loading ended, with an engine or a failure.
    """

    def __init__(self, load: Callable[[], Engine], scheduler: Scheduler) -> None:
        """`load` is called in the thread; it may raise `StartupError`."""
        self.info: ModelInfo | None = None
        self.failure: StartupError | None = None
        self.loaded = threading.Event()
        self._load = load
        self._scheduler = scheduler
        self._inbox: list[Ticket] = []
        self._changed = threading.Condition()
        self._closing = False
        self._step_began: float | None = None
        # A daemon: a step that hangs must not keep the process alive after the shutdown timeout.
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    @property
    def waiting(self) -> int:
        """Forecasts in the queue."""
        return len(self._scheduler.waiting) + len(self._inbox)

    @property
    def active(self) -> int:
        """Forecasts in the engine."""
        return len(self._scheduler.active)

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of keys and values reserved for the forecasts in the engine."""
        return sum(ticket.kv_bytes for ticket in list(self._scheduler.active))

    @property
    def stalled_for(self) -> float:
        """Seconds since the running step began; 0 between steps."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    def start(self) -> None:
        """Start the thread, which loads the engine first."""
        self._thread.start()

    def submit(self, tickets: Several[Ticket]) -> None:
        """Accept all of `tickets` or none; raises `QueueFull` or `ShuttingDown`."""
        with self._changed:
            if self._closing:
                raise shutting_down()
            self._scheduler.check_capacity(len(tickets), len(self._inbox))
            self._inbox.extend(tickets)
            self._changed.notify()

    def give_up(self, failure: StartupError) -> None:
        """Stop waiting for the engine. One that loads later is not served."""
        with self._changed:
            if not self.loaded.is_set():
                self.failure = failure
                self.loaded.set()

    def close(self) -> bool:
        """Let the thread end after the last forecast; whether it has ended. Repeatable."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            engine = self._load()
        except StartupError as failure:
            self.give_up(failure)
        except Exception as failure:
            log.exception("model_load_failed")
            self.give_up(StartupError(f"the model could not be loaded: {failure}"))
        else:
            with self._changed:
                if self.loaded.is_set():  # given up meanwhile
                    return
                self.info = engine.info
                self.loaded.set()
            self._serve(engine)

    def _serve(self, engine: Engine) -> None:
        # The C library keeps freed caches between those in use: 400 MB after 32 forecasts.
        returned, kept = time.monotonic(), True
        while self._take_inbox(RETURN_IDLE if kept else None):
            idle = not (self.waiting or self.active)
            if idle:
                engine.free_unused_memory()
            if idle or (kept and time.monotonic() - returned > RETURN_EVERY):
                return_freed_memory()
                returned = time.monotonic()
            kept = not idle
            if idle:
                continue
            self._step_began = time.monotonic()
            try:
                self._scheduler.advance(engine, time.monotonic)
            except Exception:
                # A bug in the scheduler itself: no accepted forecast may stay without an outcome.
                log.exception("scheduler_failed")
                self._scheduler.fail_all(InternalError(), time.monotonic())
            self._step_began = None

    def _take_inbox(self, patience: float | None) -> bool:
        """Move new tickets to the scheduler; False: end.

        Waits while there is nothing to do, for at most `patience` seconds.
        """
        scheduler = self._scheduler
        with self._changed:
            while not (self._inbox or scheduler.waiting or scheduler.active):
                if self._closing:
                    return False
                if not self._changed.wait(patience):
                    break
            arrived, self._inbox = self._inbox, []
            scheduler.add(arrived)
        return True
