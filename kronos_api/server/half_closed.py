"""Finds out whether a client that has closed its sending side still waits for its answer.

A client that sends a request, closes its sending side (`shutdown(SHUT_WR)`) and reads looks like
one that has closed its socket or crashed: both send a FIN. The first is to be answered, the second
must not occupy the model. Only what is sent to a client tells them apart: the system of a client
that is gone answers with a reset. So a client that still has no answer `PROBE_AFTER` seconds
after its FIN is sent one interim response, `100 Continue`, which HTTP/1.1 clients must accept at
any time (RFC 9110, 15.2). An HTTP/1.0 client must not get one and keeps its request.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from kronos_api.server.deadlines import Timer

PROBE_AFTER: Final = 1.0
"""Seconds from a client's FIN until it is probed."""
CHECK_EVERY: Final = 0.1
"""Seconds between two looks whether it has reset the connection."""
INTERIM: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class HalfClosed:
    """Aborts `transport` when its client, which sends nothing more, has reset the connection.

    The event loop does not watch a socket that has been read to its end, so this one looks.
    `may_probe`: whether an interim response may be sent at this moment.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        may_probe: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._may_probe = may_probe
        self._timer = Timer(loop)
        self._probe_at = loop.time() + PROBE_AFTER
        self._probed = False
        self._check()

    def stop(self) -> None:
        """The connection has ended."""
        self._timer.stop()

    def _check(self) -> None:
        if self._transport.is_closing():
            return
        link = self._transport.get_extra_info("socket")
        if link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        if not self._probed and self._loop.time() >= self._probe_at:
            self._probed = True
            if self._may_probe():
                self._transport.write(INTERIM)
        self._timer.start(CHECK_EVERY, self._check)
