"""A worker: one of several processes that serve under Gunicorn."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
from typing import Any, ClassVar, Final, NoReturn

import structlog
import uvicorn
from gunicorn.glogging import Logger as GunicornLogger
from uvicorn_worker import UvicornWorker

from kronos_api.errors import StartupError
from kronos_api.server.exit import NOT_STARTED
from kronos_api.server.server import Server
from kronos_api.server.worker_load import LoadTable, WorkerLoad
from kronos_api.server.worker_status import Status, WorkerStatus
from kronos_api.telemetry import logging

BEAT: Final = 1.0
"""Seconds between two heartbeats."""

log = structlog.stdlib.get_logger(__name__)


class Worker(UvicornWorker):  # type: ignore[misc]  # it has no annotations
    """Runs our `Server`. Subclasses set `OPTIONS`: those of `uvicorn.Config`.

    The master makes the object before it forks the process. `supervised`: the master is our own,
    which replaces a worker on request; under Gunicorn's, a worker stops after `max_requests`.
    `listen_when_ready`: others serve, so this one listens when its model is loaded.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {}
    LOADS: ClassVar = LoadTable()
    """Of all workers of this master."""

    def __init__(
        self, *args: Any, supervised: bool = False, listen_when_ready: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        logging.adopt_servers()  # undone by the constructor above
        self.shared = WorkerStatus()
        self.load = WorkerLoad(self.LOADS, self.age)
        self.supervised = supervised
        self.listen_when_ready = listen_when_ready
        limit = None if supervised or not self.cfg.max_requests else self.max_requests
        self.config = uvicorn.Config(
            app="", limit_max_requests=limit, backlog=self.cfg.backlog, **self.OPTIONS
        )

    @property
    def died(self) -> bool:
        """For the master: whether the process, which has ended, died while it served."""
        return self.shared.status not in (Status.STARTING, Status.STOPPED)

    def init_process(self) -> None:
        """Serve. A failure is logged and sets the exit status."""
        try:
            super().init_process()
        except StartupError as error:
            log.error("startup_failed", reason=str(error))
            self._give_up()
        except Exception:
            log.exception("unhandled_exception")
            self._give_up()

    def _give_up(self) -> NoReturn:
        sys.exit(NOT_STARTED if self.shared.status is Status.STARTING else 1)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = Server(
            self.config,
            shared=self.shared,
            load=self.load,
            listen_when_ready=self.listen_when_ready,
            max_requests=self.max_requests if self.supervised else math.inf,
            supervised=self.supervised,
        )
        heartbeats = asyncio.create_task(self._give_heartbeats(server))
        try:
            await server.serve(sockets=self.sockets)
        finally:
            heartbeats.cancel()
        if server.failed and self.shared.status is not Status.STARTING:
            # It served, and its engine hangs. On status 3, Gunicorn's own master stops all workers.
            logging.flush()
            os._exit(1)
        server.end()

    async def _give_heartbeats(self, server: Server) -> None:
        """Give heartbeats until cancelled; stop if the master has died."""
        while True:
            self.notify()
            if self.shared.command and not server.started:  # commanded before it handled signals
                server.end_at_once()
            if os.getppid() != self.ppid and not server.should_exit:
                log.error("master_lost")
                server.stop(signal.SIGTERM)
            await asyncio.sleep(min(BEAT, self.timeout or BEAT))


class Logger(GunicornLogger):
    """Writes Gunicorn's log lines into the one JSON stream."""

    def setup(self, cfg: Any) -> None:
        """Called with the settings at the start."""
        self.cfg = cfg
        self._access_log_enabled = False  # the access log middleware replaces it
        logging.adopt_servers()
