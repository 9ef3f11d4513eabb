"""Parses HTTP/1.1 with h11, in pieces of bounded cost: h11 alone lets a client block the loop.

h11 is written in Python and takes about 6 µs for a piece: a header line, or a chunk of a body
however small. The bounds here are checked before h11 parses a piece, and no more than
`EVENTS_PER_TURN` pieces are parsed in one turn of the event loop. ADR 10 has the figures.
"""

from __future__ import annotations

import re
from typing import Any, Final

import h11
from h11._receivebuffer import ReceiveBuffer

from kronos_api.errors import HeadersTooLarge, KronosError, MalformedRequest, RequestTooLarge

MAX_HEADERS: Final = 16 * 1024
"""Bytes of a request line and its headers, or of the trailers of a chunked body."""
MAX_HEADER_LINES: Final = 100
"""Lines of these, without the request line."""
MAX_CHUNK_LINE: Final = 1024
"""Bytes of the line before a chunk: its size and its extensions."""
FREE_CHUNKS: Final = 1000
"""Chunks of a body whose size is not checked."""
MIN_CHUNK: Final = 64
"""Bytes that the chunks of a body must have on average if there are more than `FREE_CHUNKS`."""
EVENTS_PER_TURN: Final = 64
"""Events of h11 that are parsed for one connection in one turn of the event loop."""

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,20}")
_ABSOLUTE: Final = re.compile(rb"(?i)https?://[^/?]*(.*)")
"""A target as clients send it to a proxy; servers must accept it too (RFC 9112, 3.2.2)."""


class Refused(h11.RemoteProtocolError):
    """The request exceeds a bound; `error` is the response."""

    def __init__(self, error: KronosError) -> None:
        super().__init__(error.message, error_status_hint=error.status)
        self.error = error


def headers_too_long() -> HeadersTooLarge:
    """The error of a request whose line and headers exceed `MAX_HEADERS` bytes."""
    return HeadersTooLarge(
        f"Request line and headers exceed {MAX_HEADERS} bytes. Send a shorter URL, or fewer or"
        " shorter headers."
    )


class BoundedBuffer(ReceiveBuffer):
    """h11's buffer of received bytes; raises `Refused` before a piece beyond a bound is parsed.

    h11 extracts headers and trailers by `maybe_extract_lines`, and the lines before chunks by
    `maybe_extract_next_line`.
    """

    def __init__(self, max_body: float) -> None:
        super().__init__()
        self._max_body = max_body
        self._chunks = 0
        self._declared = 0

    def begin_body(self) -> None:
        """Count chunks from zero."""
        self._chunks = self._declared = 0

    def skip_empty_line(self) -> bool:
        """Drop a leading empty line; whether there was one."""
        if self._data[:2] != b"\r\n":
            return False
        self._extract(2)
        return True

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Request line and headers, or trailers, once they are complete."""
        if self._data[:1] == b"\n" or self._data[:2] == b"\r\n":  # no lines at all
            return super().maybe_extract_lines()
        end = _BLANK_LINE.search(self._data, 0, MAX_HEADERS)
        if end is None and len(self._data) >= MAX_HEADERS:
            raise Refused(headers_too_long())
        # Two line breaks belong to the request line and to the blank line, not to a header.
        lines = self._data.count(b"\n", 0, end.end() if end else MAX_HEADERS) - 2
        if lines > MAX_HEADER_LINES:
            raise Refused(
                HeadersTooLarge(
                    f"The request has {lines} header lines or more; at most {MAX_HEADER_LINES} are"
                    " accepted."
                )
            )
        return super().maybe_extract_lines()

    def maybe_extract_next_line(self) -> bytearray | None:
        """The line before a chunk, once it is complete."""
        line = super().maybe_extract_next_line()
        if len(self._data if line is None else line) > MAX_CHUNK_LINE:
            message = f"The line before a chunk exceeds {MAX_CHUNK_LINE} bytes. Send no extensions."
            raise Refused(MalformedRequest(message))
        if line is not None and (size := _CHUNK_SIZE.match(line)):
            self._count(int(size[0], 16))
        return line

    def _count(self, size: int) -> None:
        self._chunks += 1
        self._declared += size
        if self._declared > self._max_body:
            raise Refused(
                RequestTooLarge(
                    f"The body has more than {self._max_body:.0f} bytes. Send fewer candles, or"
                    " raise KRONOS_MAX_REQUEST_SIZE_MB."
                )
            )
        if size and self._chunks > FREE_CHUNKS and self._declared < MIN_CHUNK * self._chunks:
            raise Refused(
                MalformedRequest(
                    f"The body came in {self._chunks} chunks of {self._declared / self._chunks:.0f}"
                    f" bytes on average; beyond {FREE_CHUNKS} chunks, the average must be"
                    f" {MIN_CHUNK} bytes or more. Send larger chunks, or Content-Length."
                )
            )


class Parser(h11.Connection):
    """h11's connection on the server's side, with bounds on what is parsed, and when.

    A chunked body is not parsed before `wants_body` is set, so a body that no application reads
    costs nothing. No more than `events_left` events are returned. In both cases `next_event`
    returns `NEED_DATA` although bytes are left.
    """

    def __init__(self, max_body: float) -> None:
        super().__init__(h11.SERVER, MAX_HEADERS)
        self._receive_buffer: BoundedBuffer = BoundedBuffer(max_body)
        self._skipped_line = False
        self.events_left = EVENTS_PER_TURN
        self.wants_body = True

    def next_event(self) -> Any:
        """As h11's; raises `h11.RemoteProtocolError`."""
        if not self.wants_body or self.events_left <= 0:
            return h11.NEED_DATA
        if self.their_state is h11.IDLE and self._at_empty_line():
            return h11.NEED_DATA
        event = super().next_event()
        if event is not h11.NEED_DATA and event is not h11.PAUSED:
            self.events_left -= 1
        return self._checked(event) if isinstance(event, h11.Request) else event

    def _at_empty_line(self) -> bool:
        """Drop one empty line before a request line; whether the rest of one may follow.

        Some clients send one after a body (RFC 9112, 2.2).
        """
        if self._skipped_line:
            return False
        self._skipped_line = self._receive_buffer.skip_empty_line()
        return len(self._receive_buffer) == 1 and bytes(self._receive_buffer) == b"\r"

    def _checked(self, event: h11.Request) -> h11.Request:
        self._skipped_line = False
        self._receive_buffer.begin_body()
        names = {name for name, _ in event.headers}
        if b"transfer-encoding" in names:
            if b"content-length" in names:
                raise Refused(
                    MalformedRequest(
                        "Content-Length and Transfer-Encoding are both given; send one of them."
                    )
                )
            if event.http_version < b"1.1":
                raise Refused(
                    MalformedRequest(
                        "HTTP/1.0 has no Transfer-Encoding; send Content-Length, or use HTTP/1.1."
                    )
                )
            self.wants_body = False
        if absolute := _ABSOLUTE.match(event.target):
            path = absolute[1]
            event = h11.Request(
                method=event.method,
                headers=list(event.headers),
                target=path if path.startswith(b"/") else b"/" + path,
                http_version=event.http_version,
            )
        return event
