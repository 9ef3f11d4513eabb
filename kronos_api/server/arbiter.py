"""The master: keeps workers running, and replaces one only when another has taken its place.

Gunicorn's own master starts all workers at once, tells a worker to stop before its replacement
serves, and gives up all of them when one cannot start. Here a first worker shows that the service
can start at all; if it cannot, the master ends with its status. The others follow when it serves,
and begin to accept connections when they have loaded the model. A worker that has served enough
requests, or all of them on SIGHUP, are replaced one at a time. Whatever fails from then on is tried
again, later each time, and leaves those alone that serve.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from signal import SIGABRT, SIGKILL, SIGQUIT, SIGTERM
from typing import Any, Final, cast

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer
from starlette.types import ASGIApp

from kronos_api.server.heartbeats import LOOK, AwakeClock, Heartbeats
from kronos_api.server.server import NOT_STARTED
from kronos_api.server.worker import Worker
from kronos_api.server.worker_status import Condition, Order
from kronos_api.telemetry import process_metrics

SERVING: Final = (Condition.READY, Condition.WORN)
LONGEST_PAUSE: Final = 60.0
"""Seconds before another try, at most, when workers cannot start."""

START_MARGIN: Final = 5.0
"""Seconds beyond KRONOS_STARTUP_TIMEOUT: a worker that is too slow says first what it waits for."""

log = structlog.stdlib.get_logger(__name__)


class Arbiter(GunicornArbiter):
    """Gunicorn's master with a hand for those that serve."""

    # What a worker's end means depends on whether it has served, not on its status: see `_ended`.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    def __init__(self, app: Application) -> None:
        super().__init__(app)
        # Gunicorn keeps both in the class.
        self.LISTENERS = [app.listener]  # type: ignore[list-item, misc]  # it is made to be logged
        self.WORKERS = {}  # type: ignore[misc]
        self._stopping = False
        self._youngest = 0  # of those that ever served: they are numbered as they are made
        self._failures = 0
        self._not_before = 0.0
        self._outdated: set[int] = set()
        self._startup_timeout = app.startup_timeout
        self._clock = AwakeClock()
        self._heartbeats = Heartbeats()
        self._started: dict[int, float] = {}  # when, of workers that do not serve yet
        self._served = 0.0  # when a worker served last

    @property
    def _workers(self) -> dict[int, Worker]:
        return cast(dict[int, Worker], self.WORKERS)

    def start(self) -> None:
        """Called before the first worker starts."""
        super().start()
        # What is there by now stays and is shared: collections in the workers pass over it.
        gc.freeze()

    def wait_for_signals(self, timeout: float | None = LOOK) -> list[int]:
        """As Gunicorn's, but not as long."""
        del timeout
        return super().wait_for_signals(LOOK)

    def handle_hup(self) -> None:
        """Replace all workers. Settings stay: they are the environment's, which cannot change."""
        self._outdated |= set(self._workers)

    def handle_int(self) -> None:
        """The first Ctrl-C stops as SIGTERM does; a second one, at once."""
        raise StopIteration

    def handle_usr2(self) -> None:
        """Gunicorn would start a second master, which could not have the port."""
        log.warning("SIGUSR2 is ignored: update by starting another instance")

    def spawn_worker(self) -> int:
        """Start a worker; it need not listen at once if another serves or is about to."""
        waits = any(not worker.page.order for worker in self._workers.values())
        kind: Any = self.cfg.worker_class
        self.worker_class = partial(kind, supervised=True, waits=waits)  # type: ignore[assignment]
        return super().spawn_worker()

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send a signal; an order to stop is written down, too, for a worker just being made."""
        worker = self._workers.get(pid)
        ends = sig in (SIGTERM, SIGQUIT)
        if worker is not None and ends and (self._stopping or not worker.page.order):
            worker.page.order = Order.STOP
        super().kill_worker(pid, sig)

    def stop(self, graceful: bool = True) -> None:
        """Stop all workers and wait for them."""
        self._stopping = True
        log.info("stopping", workers=len(self._workers), graceful=graceful)
        super().stop(graceful)

    def reap_workers(self) -> None:
        """Learn which workers have ended."""
        before = dict(self._workers)
        super().reap_workers()
        for pid, worker in before.items():
            if pid not in self._workers:
                self._ended(pid, worker)

    def murder_workers(self) -> None:
        """Kill workers that gave no heartbeat for GUNICORN_TIMEOUT, or do not come to serve."""
        now = self._clock.look()
        for pid, worker in list(self._workers.items()):
            if worker.page.condition is Condition.STARTING:
                # What it imports and loads may keep its loop for long.
                if now - self._started.setdefault(pid, now) > self._startup_timeout + START_MARGIN:
                    log.critical("worker_start_timeout", pid=pid, setting="KRONOS_STARTUP_TIMEOUT")
                    self.kill_worker(pid, SIGKILL)
                continue
            silence = self._heartbeats.silence(pid, worker.tmp.last_update(), now)
            if not self.timeout or silence <= self.timeout:
                continue
            if not worker.aborted:
                log.critical(
                    "worker_timeout", pid=pid, seconds=round(silence, 1), setting="GUNICORN_TIMEOUT"
                )
            # A process that is stopped ends by SIGKILL alone, which comes with the next look.
            self.kill_worker(pid, SIGKILL if worker.aborted else SIGABRT)
            worker.aborted = True

    def manage_workers(self) -> None:
        """Start, replace and stop workers, as far as their number and condition ask for it."""
        process_metrics.maintain_master()
        self._dismiss_stalled()
        workers = sorted(self._workers.values(), key=lambda worker: worker.age)
        staying = [
            worker
            for worker in workers
            if not worker.page.order and worker.page.condition is not Condition.ENDED
        ]
        serving = [worker for worker in staying if worker.page.condition in SERVING]
        self._check_service(bool(serving))
        if serving and serving[-1].age > self._youngest:
            self._youngest, self._failures = serving[-1].age, 0
        leaving = [worker for worker in staying if self._is_worn(worker)]
        # One process more at a time: who makes way still has its memory.
        wanted = self.num_workers + (bool(leaving) and len(staying) == len(workers))
        if not serving:
            wanted = 1  # the others follow when this one serves
        if len(staying) < wanted:
            if time.monotonic() >= self._not_before:
                self._try_to_spawn()
            return
        if len(staying) > self.num_workers:
            first = leaving[0] if leaving else staying[0]
            if len([worker for worker in serving if worker is not first]) >= self.num_workers:
                log.info("worker makes way for another", pid=first.pid)
                first.page.order = Order.MAKE_WAY
                self.kill_worker(first.pid, SIGTERM)

    def _dismiss_stalled(self) -> None:
        for worker in self._workers.values():
            if worker.page.condition is Condition.STALLED and not worker.page.order:
                log.error("stalled worker is replaced", pid=worker.pid)
                worker.page.order = Order.MAKE_WAY
                self.kill_worker(worker.pid, SIGTERM)

    def _check_service(self, serves: bool) -> None:
        """End when no worker has served for too long: who started this process starts another."""
        now = self._clock.look()
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
        except OSError as error:  # the system has no room for a process now
            if not self._youngest:
                raise HaltServer(f"no process: {error.strerror}", NOT_STARTED) from None
            self._put_off("worker could not be made", reason=error.strerror)

    def _put_off(self, event: str, **told: Any) -> None:
        """Pause before the next try, longer each time."""
        pause = min(2.0 ** min(self._failures, 10), LONGEST_PAUSE)
        self._failures += 1
        self._not_before = time.monotonic() + pause
        log.error(event, next_try_seconds=pause, **told)

    def _is_worn(self, worker: Worker) -> bool:
        return worker.page.condition is Condition.WORN or worker.pid in self._outdated

    def _ended(self, pid: int, worker: Worker) -> None:
        """Judge the end of a worker; raises `HaltServer` if there is no use in going on."""
        self._outdated.discard(pid)
        self._started.pop(pid, None)
        self._heartbeats.forget(pid)
        if worker.died:  # as the metric says, whatever it was told
            self._youngest = max(self._youngest, worker.age)
            log.error("worker died", pid=pid)
        elif self._stopping or worker.page.order or worker.page.condition is Condition.ENDED:
            log.info("worker ended", pid=pid)
        elif not self._youngest:
            raise HaltServer("the first worker could not start", NOT_STARTED)
        else:
            self._put_off("worker could not start", pid=pid)


class Listening(socket.socket):
    """A socket that Gunicorn logs as an address."""

    def __str__(self) -> str:
        host, port, *_ = self.getsockname()
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Application(BaseApplication):
    """What Gunicorn runs, on a `listener` that it takes over.

    `load` makes the application in each worker; `options` are Gunicorn's settings. The master ends
    when no worker has served for `startup_timeout` seconds.
    """

    def __init__(
        self,
        load: Callable[[], ASGIApp],
        options: Mapping[str, Any],
        listener: socket.socket,
        startup_timeout: float = 120,
    ) -> None:
        self._load = load
        self.startup_timeout = startup_timeout
        self._options = options
        self.listener = Listening(fileno=listener.detach())
        super().__init__()

    def load_config(self) -> None:
        """Take over the options."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> ASGIApp:
        """Called in each worker."""
        return self._load()

    def run(self) -> None:
        """Serve until told to stop; ends with SystemExit."""
        Arbiter(self).run()
