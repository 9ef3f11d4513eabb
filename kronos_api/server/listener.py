"""Accepts connections one at a time, and the waiting ones before it stops.

All workers share a listening socket. asyncio's own server lets the worker that wakes up first
accept all waiting connections, so that one works while others idle, and drops a connection that it
has just accepted when it is closed at that moment.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from kronos_api.errors import StartupError

PAUSE: Final = 1.0
"""Seconds without accepting after accept failed, for example for lack of descriptors."""

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
    """Makes a `protocol` for every connection to `shared`, between `start` and `stop`."""

    def __init__(self, shared: SocketLike, protocol: Callable[[], asyncio.Protocol]) -> None:
        # A socket made from the descriptor alone asks the kernel for its protocol. asyncio sets
        # TCP_NODELAY only where the protocol is TCP, and Gunicorn's sockets have protocol 0.
        self._socket = socket.socket(fileno=socket.dup(shared.fileno()))
        self._socket.setblocking(False)
        self._shared = shared
        self._protocol = protocol
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
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

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
