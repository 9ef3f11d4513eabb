"""Detects whether a client that has closed its sending side still waits for its response.

A client that sends a request, closes its sending side (`shutdown(SHUT_WR)`) and reads looks like
one that has closed its socket or crashed: both send a FIN. The first must get its response, the
second must not occupy the model. uvicorn disconnects both. Sending distinguishes them: the kernel
of a client that has gone replies with a reset. So a client without a response `PROBE_AFTER` seconds
after its FIN is sent the first bytes of one, which are the same for every response. An interim
response (`100 Continue`) would work as well, but HTTP/1.0 clients must not get one, and simple
clients take it for the final response.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from kronos_api.server.deadlines import Timer
from kronos_api.server.lingering import Lingering

PROBE_AFTER: Final = 2.0
"""Seconds from a client's FIN until it is probed."""
CHECK_EVERY: Final = 0.1
"""Seconds between two checks for a reset."""


class HalfClosed:
    """Aborts `transport` when its half-closed client has reset the connection.

    The event loop does not watch a socket that has been read to its end, so this polls it.
    `responds`: whether the response has begun.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Lingering,
        responds: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._responds = responds
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
            if not self._responds():
                self._transport.begin_response()
        self._timer.start(CHECK_EVERY, self._check)
