"""One process of several that serve under Gunicorn."""

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
from kronos_api.server.server import NOT_STARTED, Server
from kronos_api.server.worker_status import Condition, Page
from kronos_api.telemetry import logging

BEAT: Final = 1.0
"""Seconds between two heartbeats."""

log = structlog.stdlib.get_logger(__name__)


class Worker(UvicornWorker):  # type: ignore[misc]  # it has no annotations
    """Runs our server. Subclasses give it `OPTIONS`, which are those of `uvicorn.Config`.

    Made by the master before the process is. `supervised`: the master is our own, which replaces a
    worker that asks for it; under another one it ends by itself. `waits`: others serve.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, *args: Any, supervised: bool = False, waits: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        logging.adopt_servers()  # which has just been undone
        self.page = Page()
        self.supervised = supervised
        self.waits = waits
        limit = None if supervised or not self.cfg.max_requests else self.max_requests
        self.config = uvicorn.Config(
            app="", limit_max_requests=limit, backlog=self.cfg.backlog, **self.OPTIONS
        )

    @property
    def died(self) -> bool:
        """For the master, of a process that has ended: whether it died while it served."""
        return self.page.condition not in (Condition.STARTING, Condition.ENDED)

    def init_process(self) -> None:
        """Serve. What goes wrong is told as all else is, and decides the exit status."""
        try:
            super().init_process()
        except StartupError as error:
            log.error(str(error))
            self._give_up()
        except Exception:
            log.exception("worker failed")
            self._give_up()

    def _give_up(self) -> NoReturn:
        sys.exit(NOT_STARTED if self.page.condition is Condition.STARTING else 1)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = Server(
            self.config,
            page=self.page,
            waits=self.waits,
            lifetime=self.max_requests if self.supervised else math.inf,
            supervised=self.supervised,
        )
        beating = asyncio.create_task(self._beat(server))
        try:
            await server.serve(sockets=self.sockets)
        finally:
            beating.cancel()
        if server.failed and self.page.condition is not Condition.STARTING:
            # It served, and its engine hangs. For status 3, Gunicorn's own master would end all.
            logging.flush()
            os._exit(1)
        server.end()

    async def _beat(self, server: Server) -> None:
        """Give heartbeats from the start to the end, and see whether there is a master."""
        while True:
            self.notify()
            if self.page.order and not server.started:  # told before it could hear
                server.end_at_once()
            if os.getppid() != self.ppid and not server.should_exit:
                log.error("the master is gone")
                server.stop(signal.SIGTERM)
            await asyncio.sleep(min(BEAT, self.timeout or BEAT))


class Logger(GunicornLogger):
    """Gunicorn's lines, in the one stream that all lines are in."""

    def setup(self, cfg: Any) -> None:
        """Called with the settings at the start."""
        self.cfg = cfg
        self._access_log_enabled = False  # the access log is ours
        logging.adopt_servers()
