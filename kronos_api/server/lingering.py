"""A transport that drops what its client still sends before it closes."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final

LINGER: Final = 2.0
"""Seconds for which a client that was refused may go on sending."""
ANSWER_START: Final = b"HTTP/1.1 "
DROP_EVERY: Final = 0.01
"""Seconds between two reads of what is dropped. A read takes 256 KiB at most, so a client that
never stops costs about 1 % of the event loop's time, and 50 MB are dropped in `LINGER` seconds."""


class Lingering:
    """A transport that drops what is still on its way before it closes.

    If a socket is closed while bytes come in, the kernel resets the connection, and the client
    loses the last answer. `sending`: whether the client has more to send, as far as is known.
    `resumed` is called when the server asks to read on.

    Reading stops while the server does not want more (`pause_reading`), or while it still parses
    what it has (`hold`).
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
        self._begun = False
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`."""
        self._paused = True
        self._read_or_not()

    def resume_reading(self) -> None:
        """Read on."""
        self._paused = False
        self._resumed()
        self._read_or_not()

    def hold(self, held: bool) -> None:
        """Read no more, or read on unless reading is paused."""
        self._held = held
        self._read_or_not()

    def begin_answer(self) -> None:
        """Send the first bytes of the next answer, which are the same for all."""
        self._transport.write(ANSWER_START)
        self._begun = True

    def write(self, data: bytes) -> None:
        """Send `data`, less what `begin_answer` has sent of it."""
        if self._begun:
            data = data.removeprefix(ANSWER_START)
            self._begun = False
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more may be written."""
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
        except OSError:  # the client has gone, which a transport that does not read misses
            self._transport.abort()
            return
        self._read_or_not()
        self._later(LINGER, self._transport.close)

    def drop(self) -> None:
        """What has come in after `close` is dropped; go on a little later."""
        if not self._transport.is_closing():
            self._transport.pause_reading()
            self._later(DROP_EVERY, self._transport.resume_reading)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, call, context=contextvars.Context())

    def _read_or_not(self) -> None:
        if not self.lingers and (self._paused or self._held):
            self._transport.pause_reading()
        else:
            # What comes now is not of the request in whose context this is called.
            contextvars.Context().run(self._transport.resume_reading)
