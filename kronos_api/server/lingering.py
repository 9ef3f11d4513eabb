"""A transport that discards what its client still sends before it closes.

asyncio closes at once, and the client of a refused upload gets a reset instead of its response.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final

LINGER: Final = 2.0
"""Seconds in which the bytes of a refused client are read and discarded."""
RESPONSE_START: Final = b"HTTP/1.1 "
DISCARD_EVERY: Final = 0.01
"""Seconds between two reads that are discarded. A read takes 256 KiB at most, so a client that
never stops costs about 1 % of the event loop's time, and 50 MB are discarded in `LINGER`
seconds."""


class Lingering:
    """A transport that discards the bytes in flight before it closes.

    If a socket is closed while bytes arrive, the kernel resets the connection, and the client loses
    the last response. `sending`: whether the client has more to send, as far as the server knows.
    `resumed` is called when the server resumes reading.

    Reading stops while the server does not want more (`pause_reading`), or while it still parses
    (`hold`).
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        sending: Callable[[], bool],
        resumed: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._sending = sending
        self._resumed = resumed
        self._paused = False
        self._held = False
        self._started = False
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`."""
        self._paused = True
        self._update_reading()

    def resume_reading(self) -> None:
        """Resume reading."""
        self._paused = False
        self._resumed()
        self._update_reading()

    def hold(self, held: bool) -> None:
        """Stop reading, or resume it unless it is paused."""
        self._held = held
        self._update_reading()

    def begin_response(self) -> None:
        """Send the first bytes of the next response, which are the same for all."""
        self._transport.write(RESPONSE_START)
        self._started = True

    def write(self, data: bytes) -> None:
        """Send `data`, without the bytes that `begin_response` has sent."""
        if self._started:
            data = data.removeprefix(RESPONSE_START)
            self._started = False
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether the connection is closed for writing."""
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        """Close, at once or within `LINGER` seconds; may be called again."""
        if self.is_closing():
            return
        if not self._sending():
            self._transport.close()
            return
        self.lingers = True
        try:
            self._transport.write_eof()
        except OSError:  # the client has gone; a transport that does not read misses that
            self._transport.abort()
            return
        self._update_reading()
        self._later(LINGER, self._transport.close)

    def discard(self) -> None:
        """Called when bytes arrive after `close`: discard them, and read on a little later."""
        if not self._transport.is_closing():
            self._transport.pause_reading()
            self._later(DISCARD_EVERY, self._transport.resume_reading)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, call, context=contextvars.Context())

    def _update_reading(self) -> None:
        if not self.lingers and (self._paused or self._held):
            self._transport.pause_reading()
        else:
            # The bytes read next do not belong to the request in whose context this is called.
            contextvars.Context().run(self._transport.resume_reading)
