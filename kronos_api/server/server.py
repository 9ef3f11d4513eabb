"""Serves until told to stop, and loses no request then.

Who leaves says so first: readiness answers 503. It accepts what already waits and closes its
listener. What is in progress is answered. A connection that is kept open may bring one more
request, whose answer says that it is the last; no connection is closed between two requests before
its time, for a request may be on its way. Then the model goes, and the process ends with status 0.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, NoReturn, Protocol

import structlog
import uvicorn

from kronos_api.errors import StartupError
from kronos_api.middleware.lifespan import STATE
from kronos_api.server.heartbeats import Watchdog
from kronos_api.server.listener import Listener, SocketLike
from kronos_api.server.worker_status import Condition, Order, Page
from kronos_api.telemetry import logging

NOT_STARTED: Final = 3
"""Exit status when the service could not start, or could not go on serving; its log says why."""
STALL_TICKS: Final = 100
"""Ticks, ten a second, that an engine which makes no progress has to recover. Counted, and not
timed, because a machine that was paused lets none of them pass."""

TICK: Final = 0.05
GRACE_TO_END: Final = 1.0
"""Seconds that requests have to end once their connections are cut."""

log = structlog.stdlib.get_logger(__name__)


def exit_at_once(status: int) -> NoReturn:
    """End the process without finalising the interpreter.

    Finalising it while a thread loads a model, computes, or waits for a file system that is gone
    aborts the process with SIGABRT (status 134).
    """
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Lifecycle(Protocol):
    """What is served."""

    @property
    def state(self) -> str:
        """loading, ready, stalled, draining or failed."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more once it has stopped."""
        ...

    def leave(self, seconds: float | None = None) -> None:
        """Let readiness say that the service goes away, and limit how long its stop may take."""
        ...


class Server(uvicorn.Server):
    """uvicorn's server with a stop of its own.

    `page` is shared with a master, if there is one. `waits`: others serve, so that this one need
    not listen before its model is loaded. After `lifetime` requests it asks the master to be
    replaced; one without a master is told by uvicorn's `limit_max_requests` to end. `supervised`:
    the master decides. Ctrl-C, which goes to all processes of a terminal, is left to it, and the
    first SIGTERM that is not the master's asks it for a replacement. `watchdog` learns from every
    tick that the loop runs.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        page: Page | None = None,
        waits: bool = False,
        lifetime: float = math.inf,
        supervised: bool = False,
        watchdog: Watchdog | None = None,
    ) -> None:
        super().__init__(config)
        self.failed = False
        self._page = page or Page()
        self._waits = waits
        self._lifetime = lifetime
        self._supervised = supervised
        self._watchdog = watchdog
        self._stalled_ticks = 0
        self._reason: str | None = None
        self._service: Lifecycle | None = None
        self._listeners: list[Listener] = []

    async def serve(self, sockets: Sequence[SocketLike] | None = None) -> None:
        """Serve on `sockets`; returns when there is nothing left to do."""
        self._listeners = [Listener(shared, self._protocol) for shared in sockets or []]
        await super().serve()

    async def startup(self, sockets: Any = None) -> None:
        """Start the service and listen, unless it is to wait; `failed` says that it could not."""
        del sockets
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGQUIT, self.handle_exit, signal.SIGQUIT, None)
        try:
            await super().startup(sockets=[])
        except SystemExit:  # uvicorn has logged why
            self._not_started()
            return
        self._service = self.lifespan.state.get(STATE)
        if self._watchdog is not None:
            self._watchdog.start(lambda: self._state == "loading")
        if self._page.order:
            self.should_exit = True
        elif not self._waits:
            try:
                self._listen()
            except StartupError as error:
                log.error(str(error))
                self._not_started()
                if self._service is not None:
                    self._service.leave(0.0)  # its model may still be loading
                await self.lifespan.shutdown()

    @property
    def _state(self) -> str:
        return self._service.state if self._service else "ready"

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        state = self._state
        if state == "failed":
            self.failed = True
            self._reason = "the model could not be loaded"
            return True
        if self._stalled(state):
            return True
        if self._watchdog is not None:
            self._watchdog.beat()
        if state == "ready":
            if self._waits:
                self._listen()
            if self._page.condition is Condition.STARTING:
                self._page.condition = Condition.READY
        served = self.server_state.total_requests
        if served >= self._lifetime and self._page.condition is Condition.READY:
            log.info("enough requests: to be replaced", requests=served)
            self._page.condition = Condition.WORN
        return await super().on_tick(counter) or bool(self._page.order)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal to stop. The first Ctrl-C stops as SIGTERM does, a second one at once.

        Signals are not raised again at the end, as uvicorn's own server does: a stop in order
        ends with status 0.
        """
        del frame
        if self._supervised and sig == signal.SIGINT:
            return
        if sig == signal.SIGTERM and self._is_from_outside():
            log.info("replacement requested", reason=signal.SIGTERM.name)
            self._page.condition = Condition.WORN
            return
        self.stop(sig)

    def stop(self, sig: int) -> None:
        """Stop as told by `sig`."""
        if not self.started:
            self.end_at_once()
        if sig == signal.SIGQUIT or (sig == signal.SIGINT and self.should_exit):
            self.force_exit = True
        if not self.should_exit:
            self._reason = signal.Signals(sig).name
        self.should_exit = True
        self._say_so()

    async def shutdown(self, sockets: Any = None) -> None:
        """Answer what has been or is about to be asked, then let the service stop."""
        del sockets
        if self._watchdog is not None:
            self._watchdog.stop()
        began = time.monotonic()
        deadline = began + (self.config.timeout_graceful_shutdown or math.inf)
        self._say_so()
        log.info(
            "draining",
            reason=self._why(),
            connections=len(self.server_state.connections),
            requests=len(self.server_state.tasks),
        )
        last = sum([await listener.stop() for listener in self._listeners])
        log.info("listener closed", accepted_last=last)
        await self._drain(deadline)
        log.info("connections done", seconds=round(time.monotonic() - began, 3))
        if self._service is not None:
            left = 0.0 if self.force_exit else max(0.0, deadline - time.monotonic())
            self._service.leave(left if math.isfinite(left) else None)
        await self.lifespan.shutdown()
        log.info("stopped", requests=self.server_state.total_requests)

    def end(self) -> None:
        """Called last. May end the process, with the exit status that belongs to how it went."""
        if not self.failed:
            self._page.condition = Condition.ENDED
        if self.failed or (self._service is not None and not self._service.ended):
            exit_at_once(NOT_STARTED if self.failed else 0)

    def end_at_once(self) -> NoReturn:
        """End the process before it has served: there is nobody to answer.

        What it waits for meanwhile, such as a file system that is gone, may never come.
        """
        log.info("stopped before it served")
        self._page.condition = Condition.ENDED
        exit_at_once(0)

    def _not_started(self) -> None:
        """Leave without a stop in order: there is nobody to answer."""
        self.failed = self.should_exit = True
        self.started = False

    def _is_from_outside(self) -> bool:
        """Whether a SIGTERM now is not the master's, and the first one."""
        ready = self._page.condition is Condition.READY
        return self._supervised and ready and not self._page.order

    def _stalled(self, state: str) -> bool:
        """Ask for a replacement when the engine does not recover; True to stop without one."""
        self._stalled_ticks = self._stalled_ticks + 1 if state == "stalled" else 0
        if self._stalled_ticks != STALL_TICKS:
            return False
        log.error("engine_stalled", setting="KRONOS_INFERENCE_TIMEOUT")
        if self._supervised:
            self._page.condition = Condition.STALLED
            return False
        self.failed = True
        self._reason = "the engine makes no progress"
        return True

    def _why(self) -> str:
        """Why it drains."""
        if self._page.order is Order.MAKE_WAY:
            return "replaced"
        told = signal.SIGTERM.name if self._page.order else "enough requests"
        return self._reason or told

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _listen(self) -> None:
        self._waits = False
        for listener in self._listeners:
            listener.start(self.config.backlog)
        log.info("listening")

    def _say_so(self) -> None:
        # Whoever makes way for another does not speak for the service, which goes on.
        if self._service is not None and self._page.order is not Order.MAKE_WAY:
            self._service.leave()

    async def _drain(self, deadline: float) -> None:
        """Until all connections are closed, by the caller or after their last answer."""
        connections, requests = self.server_state.connections, self.server_state.tasks
        while connections or requests:
            if self.force_exit or time.monotonic() > deadline:
                log.warning(
                    "connections are cut", connections=len(connections), requests=len(requests)
                )
                for connection in list(connections):
                    connection.transport.abort()
                break
            for connection in list(connections):
                connection.shutdown()
            await asyncio.sleep(TICK)
        if requests:  # which learn that their callers are gone
            await asyncio.wait(requests, timeout=GRACE_TO_END)
