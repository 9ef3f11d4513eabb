"""Accepts connections: asyncio's own way loses some when it is told to stop.

A socket that listens is shared by all workers. asyncio lets the worker that wakes up first take all
that wait, so that one works while others idle, and drops what it has just accepted when its server
is closed at that moment. Here a worker takes one at a time, and the last ones are accepted before
the socket is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from kronos_api.errors import StartupError

PAUSE: Final = 1.0
"""Seconds without accepting after the system had no room for a connection."""

log = structlog.stdlib.get_logger(__name__)


def cannot_listen(host: str, port: int, error: OSError) -> StartupError:
    """Why the port cannot be had, in one line."""
    reason = (error.strerror or str(error)).lower()
    return StartupError(
        f"cannot listen on {host} port {port}: {reason}; KRONOS_HOST and KRONOS_PORT choose another"
    )


class SocketLike(Protocol):
    """A socket, or what Gunicorn wraps around one."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...

    def close(self) -> None:
        """Close it in this process."""
        ...


class Listener:
    """Makes a `protocol` for every connection to `shared`, between `start` and `stop`."""

    def __init__(self, shared: SocketLike, protocol: Callable[[], asyncio.Protocol]) -> None:
        # Made from the descriptor alone, a socket asks the system what it is. asyncio turns off
        # the delay of small packets only where it sees TCP by name, and Gunicorn's do not say so.
        self._socket = socket.socket(fileno=socket.dup(shared.fileno()))
        self._socket.setblocking(False)
        self._shared = shared
        self._protocol = protocol
        self._listens = False
        self._pause: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    def start(self, backlog: int) -> None:
        """Let connections come in, of which `backlog` may wait.

        Raises `StartupError` if another service listens there since: two may bind a port as long as
        neither listens, and the second one to listen is refused.
        """
        try:
            self._socket.listen(backlog)
        except OSError as error:
            host, port, *_ = self._socket.getsockname()
            raise cannot_listen(host, port, error) from None
        self._listens = True
        self._watch()

    async def stop(self) -> int:
        """Accept what waits, and no more; returns how many that were.

        Where no other worker listens, the system resets what nobody has accepted.
        """
        if self._pause is not None:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        last = 0
        while self._listens and self._accept():
            last += 1
        # It goes with its last descriptor: until then callers would wait for nobody.
        self._socket.close()
        self._shared.close()
        if self._arriving:
            await asyncio.wait(self._arriving)
        return last

    def _watch(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> bool:
        """Take one connection; whether there was one."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):  # another worker was faster
            return False
        except ConnectionAbortedError:  # it has gone, the next one may be there
            return True
        except OSError as error:
            log.error("cannot accept connections", reason=error.strerror)
            loop = asyncio.get_running_loop()
            if loop.remove_reader(self._socket):
                self._pause = loop.call_later(PAUSE, self._watch)
            return False
        connection.setblocking(False)
        arrival = asyncio.get_running_loop().create_task(self._arrive(connection))
        self._arriving.add(arrival)
        arrival.add_done_callback(self._arriving.discard)
        return True

    async def _arrive(self, connection: socket.socket) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError as error:  # it has gone again
            log.debug("connection lost at once", reason=error.strerror)
            connection.close()
