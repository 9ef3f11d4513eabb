"""Accepts connections one at a time, and the waiting ones before it stops.

All workers share a listening socket. A worker leaves a connection to those with less load for a
moment, and accepts it if none of them does. asyncio's own server lets the worker that wakes up
first accept all waiting connections, so that one works while others idle, and drops a connection
that it has just accepted when it is closed at that moment.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from kronos_api.errors import StartupError
from kronos_api.server.worker_load import WorkerLoad

PAUSE: Final = 1.0
"""Seconds without accepting after accept failed, for example for lack of descriptors."""

OFFER: Final = 0.05
"""Seconds in which a connection is left to workers with less load."""
LOOK_AGAIN: Final = 0.001
"""Seconds between two looks whether one of them has accepted it."""
UNANSWERED: Final = 1.0
"""Seconds without another offer after one that no worker took: the least loaded one may hang."""

log = structlog.stdlib.get_logger(__name__)


def cannot_listen(host: str, port: int, error: OSError) -> StartupError:
    """Why the port cannot be used, in one line."""
    reason = (error.strerror or str(error)).lower()
    return StartupError(
        f"cannot listen on {host} port {port}: {reason}. Set KRONOS_HOST or KRONOS_PORT to a free"
        " address, for example KRONOS_PORT=8001."
    )


class SocketLike(Protocol):
    """A socket, or Gunicorn's wrapper of one."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...

    def close(self) -> None:
        """Close it in this process."""
        ...


class Listener:
    """Makes a `protocol` for every connection to `shared`, between `start` and `stop`.

    `load` compares this worker with the others that accept from it.
    """

    def __init__(
        self,
        shared: SocketLike,
        protocol: Callable[[], asyncio.Protocol],
        load: WorkerLoad | None = None,
    ) -> None:
        # A socket made from the descriptor alone asks the kernel for its protocol. asyncio sets
        # TCP_NODELAY only where the protocol is TCP, and Gunicorn's sockets have protocol 0.
        self._socket = socket.socket(fileno=socket.dup(shared.fileno()))
        self._socket.setblocking(False)
        self._shared = shared
        self._protocol = protocol
        self._load = load or WorkerLoad()
        self._offered: float | None = None
        self._no_offer_until = -math.inf
        self._listening = False
        self._pause: asyncio.TimerHandle | None = None
        self._arrivals: set[asyncio.Task[None]] = set()

    def start(self, backlog: int) -> None:
        """Listen and accept; `backlog` connections wait at most.

        Raises `StartupError` if another service listens there: two can bind a port as long as
        neither listens, and the second to listen fails.
        """
        try:
            self._socket.listen(backlog)
        except OSError as error:
            host, port, *_ = self._socket.getsockname()
            raise cannot_listen(host, port, error) from None
        self._listening = True
        self._watch()

    async def stop(self) -> int:
        """Accept the connections that wait, then close; returns how many they were.

        If no other worker listens, the kernel resets connections that were not accepted.
        """
        if self._pause is not None:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        last = 0
        while self._listening and self._accept():
            last += 1
        # The port closes with its last descriptor; until then connections would queue unanswered.
        self._socket.close()
        self._shared.close()
        if self._arrivals:
            await asyncio.wait(self._arrivals)
        return last

    def _watch(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._socket, self._arrived)

    def _arrived(self) -> None:
        """Called while a connection waits: accept it, or leave it to a worker with less load."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._no_offer_until or self._load.excess <= 0:
            self._accept()
            return
        if self._offered is None:
            self._offered = now
        if now - self._offered > OFFER:
            self._offered = None
            self._no_offer_until = now + UNANSWERED
            self._accept()
            return
        loop.remove_reader(self._socket)
        self._pause = loop.call_later(LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        if not waiting.poll(0):  # a worker with less load accepted what was offered
            self._offered = None
        self._watch()

    def _accept(self) -> bool:
        """Accept one connection; whether to try again."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):  # another worker accepted it
            return False
        except ConnectionAbortedError:  # the client has gone; the next may wait
            return True
        except OSError as error:
            log.error("accept_failed", reason=error.strerror)
            loop = asyncio.get_running_loop()
            if loop.remove_reader(self._socket):
                self._pause = loop.call_later(PAUSE, self._watch)
            return False
        connection.setblocking(False)
        arrival = asyncio.get_running_loop().create_task(self._arrive(connection))
        self._arrivals.add(arrival)
        arrival.add_done_callback(self._arrivals.discard)
        return True

    async def _arrive(self, connection: socket.socket) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError as error:  # the client has gone
            log.debug("connection_lost", reason=error.strerror)
            connection.close()
