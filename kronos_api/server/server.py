"""Serves until it is stopped, and then loses no request.

A server that stops first reports itself not ready (503 from readiness). It accepts the connections
that wait and closes its listener. Requests in progress get their responses. A kept-alive connection
may bring one more request, whose response has `Connection: close`; an idle one is closed only at
its own timeout, because a request may be in flight to it. Then the model is unloaded, and the
process ends with status 0. uvicorn's own server closes idle connections at once and drops what it
has just accepted.
"""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, NoReturn

import structlog
import uvicorn

from kronos_api.errors import StartupError
from kronos_api.middleware.lifespan import STATE
from kronos_api.server.draining import Drainable, drain
from kronos_api.server.exit import NOT_STARTED, exit_at_once
from kronos_api.server.heartbeats import Watchdog
from kronos_api.server.listener import Listener, SocketLike
from kronos_api.server.worker_load import LOAD, WorkerLoad
from kronos_api.server.worker_status import Command, Status, WorkerStatus

STALL_TICKS: Final = 100
"""Ticks, ten a second, that a stalled engine has to recover. Counted, not timed, because no tick
passes while a machine is paused."""

log = structlog.stdlib.get_logger(__name__)


class Server(uvicorn.Server):
    """uvicorn's server with a shutdown of its own.

    `shared` is the status that a master sees, if there is one, and `load` what the other workers
    see. `listen_when_ready`: others serve,
    so this one listens when its model is loaded, not before. After `max_requests` it asks the
    master to be recycled; without a master, uvicorn's `limit_max_requests` stops it. `supervised`:
    there is a master of ours. It handles Ctrl-C, which goes to all processes of a terminal, and it
    replaces a worker that another process sends a first SIGTERM. `watchdog` gets a heartbeat at
    every tick.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        shared: WorkerStatus | None = None,
        load: WorkerLoad | None = None,
        listen_when_ready: bool = False,
        max_requests: float = math.inf,
        supervised: bool = False,
        watchdog: Watchdog | None = None,
    ) -> None:
        super().__init__(config)
        self.failed = False
        self._shared = shared or WorkerStatus()
        self._load = load or WorkerLoad()
        self._listen_when_ready = listen_when_ready
        self._max_requests = max_requests
        self._supervised = supervised
        self._watchdog = watchdog
        self._stalled_ticks = 0
        self._reason: str | None = None
        self._service: Drainable | None = None
        self._listeners: list[Listener] = []

    async def serve(self, sockets: Sequence[SocketLike] | None = None) -> None:
        """Serve on `sockets`; returns when the server has stopped."""
        self._listeners = [Listener(shared, self._protocol, self._load) for shared in sockets or []]
        await super().serve()

    async def startup(self, sockets: Any = None) -> None:
        """Start the service and listen, unless that comes later; sets `failed` if it cannot."""
        del sockets
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGQUIT, self.handle_exit, signal.SIGQUIT, None)
        try:
            await super().startup(sockets=[])
        except SystemExit:  # uvicorn has logged the reason
            self._give_up()
            return
        self._service = self._load.service = self.lifespan.state.get(STATE)
        if self._watchdog is not None:
            self._watchdog.start(lambda: self._state == "loading")
        if self._shared.command:
            self.should_exit = True
        elif not self._listen_when_ready:
            try:
                self._listen()
            except StartupError as error:
                log.error("startup_failed", reason=str(error))
                self._give_up()
                if self._service is not None:
                    self._service.mark_unready(0.0)  # its model may still be loading
                await self.lifespan.shutdown()

    @property
    def _state(self) -> str:
        return self._service.state if self._service else "ready"

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        state = self._state
        if state == "failed":
            self.failed = True
            self._reason = "model_load_failed"
            return True
        if self._check_stalled(state):
            return True
        if self._watchdog is not None:
            self._watchdog.beat()
        self._load.publish()
        if state == "ready":
            if self._listen_when_ready:
                self._listen()
            if self._shared.status is Status.STARTING:
                self._shared.status = Status.READY
        served = self.server_state.total_requests
        if served >= self._max_requests and self._shared.status is Status.READY:
            self._request_recycling("max_requests", requests=served)
        return await super().on_tick(counter) or bool(self._shared.command)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to stop. The first Ctrl-C stops as SIGTERM does, a second one at once.

        Signals are not raised again at the end, as uvicorn's own server does: an orderly stop ends
        with status 0.
        """
        del frame
        if self._supervised and sig == signal.SIGINT:
            return
        if sig == signal.SIGTERM and self._is_from_outside():
            self._request_recycling(signal.SIGTERM.name)
            return
        self.stop(sig)

    def stop(self, sig: int) -> None:
        """Stop as signal `sig` demands."""
        if not self.started:
            self.end_at_once()
        if sig == signal.SIGQUIT or (sig == signal.SIGINT and self.should_exit):
            self.force_exit = True
        if not self.should_exit:
            self._reason = signal.Signals(sig).name
        self.should_exit = True
        self._mark_unready()

    async def shutdown(self, sockets: Any = None) -> None:
        """Answer every request that was or is about to be sent, then stop the service."""
        del sockets
        if self._watchdog is not None:
            self._watchdog.stop()
        began = time.monotonic()
        deadline = began + (self.config.timeout_graceful_shutdown or math.inf)
        self._mark_unready()
        self._load.withdraw()
        log.info(
            "draining",
            reason=self._stop_reason(),
            connections=len(self.server_state.connections),
            requests=len(self.server_state.tasks),
        )
        last = sum([await listener.stop() for listener in self._listeners])
        log.info("listener_closed", accepted_last=last)
        await drain(self.server_state, deadline, lambda: self.force_exit)
        log.info("connections_drained", seconds=round(time.monotonic() - began, 3))
        if self._service is not None:
            left = 0.0 if self.force_exit else max(0.0, deadline - time.monotonic())
            self._service.mark_unready(left if math.isfinite(left) else None)
        await self.lifespan.shutdown()
        log.info("stopped", requests=self.server_state.total_requests)

    def end(self) -> None:
        """Called last: end the process, with its exit status, if a thread would hold it."""
        if not self.failed:
            self._shared.status = Status.STOPPED
        if self.failed or (self._service is not None and not self._service.ended):
            exit_at_once(NOT_STARTED if self.failed else 0)

    def end_at_once(self) -> NoReturn:
        """End the process before it has served: no caller waits for a response.

        It may be waiting for an unresponsive file system, so an orderly stop could take forever.
        """
        log.info("stopped_before_ready")
        self._shared.status = Status.STOPPED
        exit_at_once(0)

    def _give_up(self) -> None:
        """Stop without draining: no caller waits for a response."""
        self.failed = self.should_exit = True
        self.started = False

    def _is_from_outside(self) -> bool:
        """Whether a SIGTERM at this moment is the first, and not the master's."""
        ready = self._shared.status is Status.READY
        return self._supervised and ready and not self._shared.command

    def _request_recycling(self, reason: str, **fields: int) -> None:
        log.info("worker_recycle_requested", reason=reason, **fields)
        self._shared.status = Status.RECYCLE_REQUESTED

    def _check_stalled(self, state: str) -> bool:
        """Ask to be replaced if the engine does not recover; True to stop without a master."""
        self._stalled_ticks = self._stalled_ticks + 1 if state == "stalled" else 0
        if self._stalled_ticks != STALL_TICKS:
            return False
        log.error("engine_stalled", setting="KRONOS_INFERENCE_TIMEOUT")
        if self._supervised:
            self._shared.status = Status.STALLED
            return False
        self.failed = True
        self._reason = "engine_stalled"
        return True

    def _stop_reason(self) -> str:
        if self._shared.command is Command.RETIRE:
            return "retired"
        return self._reason or (signal.SIGTERM.name if self._shared.command else "max_requests")

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        state = self.lifespan.state | {LOAD: self._load}
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=state
        )
        return protocol

    def _listen(self) -> None:
        self._listen_when_ready = False
        self._load.accept()
        for listener in self._listeners:
            listener.start(self.config.backlog)
        log.info("listening")

    def _mark_unready(self) -> None:
        # A retired worker reports ready: the service as a whole goes on.
        if self._service is not None and self._shared.command is not Command.RETIRE:
            self._service.mark_unready()
