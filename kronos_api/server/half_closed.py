"""Finds out whether a client that has closed its sending side still waits for its answer.

A client that sends a request, closes its sending side (`shutdown(SHUT_WR)`) and reads looks like
one that has closed its socket or crashed: both send a FIN. The first is to be answered, the second
must not occupy the model. Only what is sent
to a client tells them apart: the system of a client that is gone answers with a reset. So a client
that still has no answer `PROBE_AFTER` seconds after its FIN is sent the first bytes of its answer,
which are the same for every answer. An interim response (`100 Continue`) would do as well, but
HTTP/1.0 clients must not get one, and simple clients take it for the answer.
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
"""Seconds between two looks whether it has reset the connection."""


class HalfClosed:
    """Aborts `transport` when its client, which sends nothing more, has reset the connection.

    The event loop does not watch a socket that has been read to its end, so this one looks.
    `answers`: whether the answer has begun.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Lingering,
        answers: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._answers = answers
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
            if not self._answers():
                self._transport.begin_answer()
        self._timer.start(CHECK_EVERY, self._check)
