"""The engine's thread: the only place that knows two threads.

Requests come from the event loop through an inbox; outcomes go back through a callback that the
caller makes safe for its own thread. The scheduler belongs to the engine's thread, so nothing is
locked while the engine computes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol

import structlog

from kronos_api.batching.scheduler import Job, Job_contra, Run, Runner, Scheduler, Ticket
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.errors import InternalError, ShuttingDown, StartupError

log = structlog.get_logger(__name__)


class Engine(Runner[Job_contra, Run], Protocol[Job_contra, Run]):
    """What the worker drives."""

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
        ...


class Worker(Generic[Job, Run]):
    """Loads an engine and drives it until closed."""

    def __init__(
        self, load: Callable[[], Engine[Job, Run]], scheduler: Scheduler[Job, Run]
    ) -> None:
        self.info: ModelInfo | None = None
        self.failure: StartupError | None = None
        self.loaded = threading.Event()
        self._load = load
        self._scheduler = scheduler
        self._inbox: list[Ticket[Job, Run]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._advancing_since: float | None = None
        # A daemon: a forecast that hangs must not keep the process alive after its deadline.
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._scheduler.waiting) + len(self._inbox)

    @property
    def active(self) -> int:
        """Requests in the engine."""
        return len(self._scheduler.active)

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes that the requests in the engine may hold."""
        return sum(ticket.bytes for ticket in list(self._scheduler.active))

    @property
    def stalled_for(self) -> float:
        """Seconds since the step that runs now began; 0 between steps."""
        since = self._advancing_since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Start the thread, which loads first."""
        self._thread.start()

    def submit(self, tickets: Sequence[Ticket[Job, Run]]) -> None:
        """Accept all of `tickets` or none; raises QueueFull or ShuttingDown."""
        with self._changed:
            if self._closing:
                raise ShuttingDown("The service is shutting down.", retry_after=1)
            self._scheduler.check_room(len(tickets), len(self._inbox))
            self._inbox.extend(tickets)
            self._changed.notify()

    def give_up(self, failure: StartupError) -> None:
        """Wait for the engine no longer. If it loads after all, it serves nothing."""
        with self._changed:
            if not self.loaded.is_set():
                self.failure = failure
                self.loaded.set()

    def close(self) -> bool:
        """Let the thread end once nothing is left to do; whether it has. May be called again."""
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
                if self.loaded.is_set():  # too late: it was given up
                    return
                self.info = engine.info
                self.loaded.set()
            self._serve(engine)

    def _serve(self, engine: Engine[Job, Run]) -> None:
        while self._take_inbox():
            self._advancing_since = time.monotonic()
            try:
                self._scheduler.advance(engine, time.monotonic)
            except Exception:
                # A defect of the bookkeeping itself: answer everybody and go on.
                log.exception("scheduler_failed")
                self._scheduler.fail_all(InternalError(), time.monotonic())
            self._advancing_since = None

    def _take_inbox(self) -> bool:
        """Move what arrived to the scheduler, waiting if there is nothing to do; False to end."""
        scheduler = self._scheduler
        with self._changed:
            while not (self._inbox or scheduler.waiting or scheduler.active):
                if self._closing:
                    return False
                self._changed.wait()
            arrived, self._inbox = self._inbox, []
            scheduler.add(arrived)
        return True
