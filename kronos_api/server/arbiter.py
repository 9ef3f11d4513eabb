"""The master: keeps workers running, and retires one only after its replacement serves.

Gunicorn's own master starts all workers at once, stops a worker before its replacement serves, and
stops all of them when one cannot start, so requests are lost whenever a worker is replaced. Here
one worker starts first; if it cannot, the master ends with its status. The others follow when it
serves, and listen when they have loaded the model. Workers that request recycling, or all of them
on SIGHUP, are replaced one at a time. Later failures are retried after a growing pause and leave
the serving workers alone.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from signal import SIGABRT, SIGKILL, SIGQUIT, SIGTERM
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer

from kronos_api.server.exit import NOT_STARTED
from kronos_api.server.heartbeats import CHECK_SECONDS, AwakeClock, Heartbeats
from kronos_api.server.worker import Worker
from kronos_api.server.worker_status import Command, Status
from kronos_api.telemetry import process_metrics

if TYPE_CHECKING:
    from kronos_api.server.application import Application

SERVING: Final = (Status.READY, Status.RECYCLE_REQUESTED)
MAX_PAUSE: Final = 60.0
"""Seconds before another start of a worker, at most, after failed ones."""

START_MARGIN: Final = 5.0
"""Seconds beyond KRONOS_STARTUP_TIMEOUT, in which a worker can log what it waits for."""

log = structlog.stdlib.get_logger(__name__)


class Arbiter(GunicornArbiter):
    """Gunicorn's master, with replacement before retirement."""

    # A worker's end is judged by whether it has served, not by its exit status: see `_ended`.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    def __init__(self, app: Application) -> None:
        super().__init__(app)
        # Gunicorn keeps both in the class.
        self.LISTENERS = [app.listener]  # type: ignore[list-item, misc]  # has a __str__ for the log
        self.WORKERS = {}  # type: ignore[misc]
        self._stopping = False
        self._youngest = 0  # the highest age of a worker that has served; ages count up
        self._failures = 0
        self._not_before = 0.0
        self._outdated: set[int] = set()
        self._startup_timeout = app.startup_timeout
        self._maintain = app.maintain
        self._clock = AwakeClock()
        self._heartbeats = Heartbeats()
        self._started: dict[int, float] = {}  # by process id, of workers that do not serve yet
        self._served = 0.0  # last time at which a worker served

    @property
    def _workers(self) -> dict[int, Worker]:
        return cast(dict[int, Worker], self.WORKERS)

    def start(self) -> None:
        """Called before the first worker starts."""
        super().start()
        # Present objects stay, shared with the workers: their garbage collections skip them.
        gc.freeze()

    def wait_for_signals(self, timeout: float | None = CHECK_SECONDS) -> list[int]:
        """As Gunicorn's, but with a shorter timeout."""
        del timeout
        return super().wait_for_signals(CHECK_SECONDS)

    def handle_hup(self) -> None:
        """Replace all workers. Settings stay, because they come from the environment."""
        self._outdated |= set(self._workers)

    def handle_int(self) -> None:
        """Stop: the first Ctrl-C as SIGTERM does, a second one at once."""
        raise StopIteration

    def handle_usr2(self) -> None:
        """Ignored: Gunicorn would start a second master, which could not bind the port."""
        log.warning("signal_ignored", signal="SIGUSR2", hint="update by starting another instance")

    def spawn_worker(self) -> int:
        """Start a worker; while another serves or starts, it listens when it is ready."""
        others = any(not worker.shared.command for worker in self._workers.values())
        kind: Any = self.cfg.worker_class
        self.worker_class = partial(kind, supervised=True, listen_when_ready=others)  # type: ignore[assignment]
        return super().spawn_worker()

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send a signal; a stop is also a command, in case the worker handles no signals yet."""
        worker = self._workers.get(pid)
        stops = sig in (SIGTERM, SIGQUIT)
        if worker is not None and stops and (self._stopping or not worker.shared.command):
            worker.shared.command = Command.STOP
        super().kill_worker(pid, sig)

    def stop(self, graceful: bool = True) -> None:
        """Stop all workers and wait for them."""
        self._stopping = True
        log.info("stopping", workers=len(self._workers), graceful=graceful)
        super().stop(graceful)

    def reap_workers(self) -> None:
        """Handle the workers that have ended."""
        before = dict(self._workers)
        super().reap_workers()
        for pid, worker in before.items():
            if pid not in self._workers:
                self._ended(pid, worker)

    def murder_workers(self) -> None:
        """Kill workers without a heartbeat for GUNICORN_TIMEOUT, or not serving in time."""
        now = self._clock.advance()
        for pid, worker in list(self._workers.items()):
            if worker.shared.status is Status.STARTING:
                # Imports and loading may block its loop for long.
                if now - self._started.setdefault(pid, now) > self._startup_timeout + START_MARGIN:
                    log.critical(
                        "worker_start_timeout", worker_pid=pid, setting="KRONOS_STARTUP_TIMEOUT"
                    )
                    self.kill_worker(pid, SIGKILL)
                continue
            silence = self._heartbeats.silence(pid, worker.tmp.last_update(), now)
            if not self.timeout or silence <= self.timeout:
                continue
            if not worker.aborted:
                log.critical(
                    "worker_timeout",
                    worker_pid=pid,
                    seconds=round(silence, 1),
                    setting="GUNICORN_TIMEOUT",
                )
            # A stopped process (SIGSTOP) ends by SIGKILL alone, which the next check sends.
            self.kill_worker(pid, SIGKILL if worker.aborted else SIGABRT)
            worker.aborted = True

    def manage_workers(self) -> None:
        """Start, replace and retire workers as their number and status require."""
        process_metrics.maintain_master()
        self._maintain()
        self._retire_stalled()
        workers = sorted(self._workers.values(), key=lambda worker: worker.age)
        staying = [
            worker
            for worker in workers
            if not worker.shared.command and worker.shared.status is not Status.STOPPED
        ]
        serving = [worker for worker in staying if worker.shared.status in SERVING]
        self._check_service(bool(serving))
        if serving and serving[-1].age > self._youngest:
            self._youngest, self._failures = serving[-1].age, 0
        outdated = [worker for worker in staying if self._is_outdated(worker)]
        # One additional process at a time: a draining worker still has its memory.
        wanted = self.num_workers + (bool(outdated) and len(staying) == len(workers))
        if not serving:
            wanted = 1  # the others follow when this one serves
        if len(staying) < wanted:
            if time.monotonic() >= self._not_before:
                self._try_to_spawn()
            return
        if len(staying) > self.num_workers:
            first = outdated[0] if outdated else staying[0]
            if len([worker for worker in serving if worker is not first]) >= self.num_workers:
                log.info("worker_retired", worker_pid=first.pid, reason="replaced")
                self._retire(first)

    def _retire_stalled(self) -> None:
        for worker in self._workers.values():
            if worker.shared.status is Status.STALLED and not worker.shared.command:
                log.error("worker_retired", worker_pid=worker.pid, reason="engine_stalled")
                self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        worker.shared.command = Command.RETIRE
        self.kill_worker(worker.pid, SIGTERM)

    def _check_service(self, serves: bool) -> None:
        """Raise `HaltServer` if no worker has served for too long: a supervisor may restart it."""
        now = self._clock.advance()
        if serves:
            self._served = now
        elif now - self._served > self._startup_timeout + START_MARGIN:
            reason = (
                f"no worker has served for KRONOS_STARTUP_TIMEOUT ({self._startup_timeout:g} s)"
            )
            raise HaltServer(reason, NOT_STARTED)

    def _try_to_spawn(self) -> None:
        try:
            self.spawn_worker()
        except OSError as error:  # a limit on processes or memory
            if not self._youngest:
                raise HaltServer(f"cannot fork a worker: {error.strerror}", NOT_STARTED) from None
            self._postpone("worker_spawn_failed", reason=error.strerror)

    def _postpone(self, event: str, **fields: Any) -> None:
        """Log `event` and pause before the next start, longer each time."""
        pause = min(2.0 ** min(self._failures, 10), MAX_PAUSE)
        self._failures += 1
        self._not_before = time.monotonic() + pause
        log.error(event, next_try_seconds=pause, **fields)

    def _is_outdated(self, worker: Worker) -> bool:
        requested = worker.shared.status is Status.RECYCLE_REQUESTED
        return requested or worker.pid in self._outdated

    def _ended(self, pid: int, worker: Worker) -> None:
        """Log the end of a worker; raises `HaltServer` if the service cannot start."""
        self._outdated.discard(pid)
        self._started.pop(pid, None)
        self._heartbeats.drop(pid)
        if worker.died:  # counted in kronos_worker_deaths_total, whatever its command was
            self._youngest = max(self._youngest, worker.age)
            log.error("worker_died", worker_pid=pid)
        elif self._stopping or worker.shared.command or worker.shared.status is Status.STOPPED:
            log.info("worker_stopped", worker_pid=pid)
        elif not self._youngest:
            raise HaltServer("the first worker could not start", NOT_STARTED)
        else:
            self._postpone("worker_start_failed", worker_pid=pid)
