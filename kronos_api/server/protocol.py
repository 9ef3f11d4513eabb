"""HTTP on one connection: uvicorn's protocol, with deadlines for callers that are slow.

Whoever opens a connection and says nothing, dribbles a head or a body, does not take its answer,
or keeps a connection that it does not use, is let go in time. A request that came in whole and
waits for its forecast is under none of these deadlines. What the server itself refuses has the
shape that all refusals have.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import h11
import structlog
from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol, RequestResponseCycle

from kronos_api.errors import HeadTooLarge, KronosError, MalformedRequest, RequestTimeout
from kronos_api.middleware.envelope import render
from kronos_api.middleware.request_id import HEADER
from kronos_api.security.identity import Connection
from kronos_api.telemetry import metrics

MAX_HEAD: Final = 16 * 1024
"""Request line and headers of one request, in bytes."""

Wait = Literal["head", "body", "answer", "idle"]

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How many seconds a caller has."""

    head: float
    """For a request's line and headers, from the connection or from their first byte."""
    body: float
    """For a request's body, from the end of its head."""
    answer: float
    """For taking what is written to a connection that is full, or that is being closed."""
    idle: float
    """For the next request on a connection that is kept open."""


LINGER: Final = 2.0
"""Seconds for which a caller that was refused may go on sending."""
_ABSOLUTE = re.compile(rb"(?i)https?://[^/?]*(.*)")
"""The form of a target that callers use with a proxy, and servers must take as well."""


class Reader(h11.Connection):
    """Refuses, too, what this service has no use for: large heads and two lengths for one body."""

    def next_event(self) -> Any:
        """As h11's; raises `h11.RemoteProtocolError`."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            size = len(event.target) + sum(len(name) + len(value) for name, value in event.headers)
            if size > MAX_HEAD:
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                raise h11.RemoteProtocolError("two lengths for one body")
            if absolute := _ABSOLUTE.match(event.target):
                path = absolute[1]
                event = h11.Request(
                    method=event.method,
                    headers=list(event.headers),
                    target=path if path.startswith(b"/") else b"/" + path,
                    http_version=event.http_version,
                )
        return event


class Lingering:
    """A transport that takes what is still on its way, and drops it, before it closes.

    Closed while bytes come in, the kernel resets the connection, and with it what was answered
    last. `sending`: whether the caller has more to send, as far as is known.
    """

    def __init__(self, transport: asyncio.Transport, sending: Callable[[], bool]) -> None:
        self._transport = transport
        self._sending = sending
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def resume_reading(self) -> None:
        """Read on; what comes then is not of the request in whose context this is called."""
        contextvars.Context().run(self._transport.resume_reading)

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
        except OSError:  # nobody is there any more, which a transport that does not read misses
            self._transport.abort()
            return
        self.resume_reading()
        loop = asyncio.get_running_loop()
        loop.call_later(LINGER, self._transport.close, context=contextvars.Context())


class Protocol(H11Protocol):
    """One connection. `scope["state"]["connection"]` is the same for all of its requests."""

    def __init__(self, *args: Any, deadlines: Deadlines, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = Reader(h11.SERVER, MAX_HEAD)
        self.deadlines = deadlines
        self._wait: tuple[Wait, object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Lingering(transport, self._caller_sends))  # type: ignore[arg-type]
        peer = Connection(self.client[0] if self.client else None)
        self.app_state = {**self.app_state, "connection": peer}
        self._await_caller("head")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._say_last()
        # The end of a body that was answered before it came does not begin a head.
        cycle: RequestResponseCycle | None = self.cycle
        answered = cycle is not None and cycle.response_complete
        self._await_caller("idle" if answered and not self.conn.trailing_data[0] else "head")

    def on_response_complete(self) -> None:
        # What has come in behind the request is none of its own, nor are lines about that.
        contextvars.Context().run(super().on_response_complete)
        self._say_last()
        self._await_caller("idle")

    def shutdown(self) -> None:
        """The server leaves: let the next answer be the last. May be called again.

        Closing a connection that only waits would meet the request that may be on its way.
        """
        self._leaving = True
        self._say_last()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_answer_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_answer_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_answer_timer()
        if self.transport.is_closing():
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; called while h11's error is handled."""
        cause = sys.exception()
        hint = cause.error_status_hint if isinstance(cause, h11.RemoteProtocolError) else 400
        if hint == 431:
            self._refuse(HeadTooLarge(f"Request line and headers exceed {MAX_HEAD} bytes."))
        else:
            self._refuse(MalformedRequest(msg))

    def _caller_sends(self) -> bool:
        """Whether a request has not come in whole; what is malformed has no end."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _say_last(self) -> None:
        """If the server leaves: add to the answer that is due that no other follows."""
        cycle: RequestResponseCycle | None = self.cycle
        if not self._leaving or cycle is None or cycle.response_started:
            return
        # What has been sent behind this request is still answered.
        if not self.conn.trailing_data[0] and CLOSE_HEADER not in cycle.default_headers:
            cycle.default_headers = [*cycle.default_headers, CLOSE_HEADER]

    def _await_caller(self, between: Wait) -> None:
        """Set the deadline for what the caller must do next; `between` requests, for this."""
        theirs = self.conn.their_state
        if self.transport.is_closing():
            self._close()
        elif theirs is h11.SEND_BODY:
            self._wait_for("body", self.cycle)
        elif theirs is h11.IDLE:
            self._wait_for(between, None)
        else:  # the request is whole
            self._stop_waiting()

    def _wait_for(self, wait: Wait, of: object) -> None:
        """Start a deadline, unless it runs: more bytes of the same give no more time."""
        if self._wait == (wait, of):
            return
        self._stop_waiting()
        self._wait = wait, of
        self._timer = self._later(getattr(self.deadlines, wait), self._too_slow, wait)

    def _stop_waiting(self) -> None:
        self._wait = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self, wait: Wait) -> None:
        self._stop_waiting()
        if wait == "body" and self.flow.read_paused:  # it is we who do not read
            self._wait_for("body", self.cycle)
            return
        if wait == "idle" and not self.conn.trailing_data[0]:
            self._close()
            return
        self._count(wait)
        if wait == "body" or self.conn.trailing_data[0]:
            self._refuse(RequestTimeout("The request did not come in whole in time."))
        else:
            self._close()

    def _count(self, wait: Wait) -> None:
        metrics.SLOW_CALLERS.labels(wait).inc()
        log.warning("slow caller", waited_for=wait, peer=self.client[0] if self.client else None)

    def _refuse(self, error: KronosError) -> None:
        """Answer with `error` if no answer has begun, and close."""
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.response_complete:
            cycle = None
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            scope: Scope = dict(cycle.scope) if cycle else {"state": {}}
            request_id = scope["state"].setdefault("request_id", uuid.uuid4().hex)
            # In a context of its own: what is bound for this refusal's lines ends with it.
            response = contextvars.copy_context().run(render, error, scope)
            response.headers.update({HEADER: request_id, "Connection": "close"})
            self.transport.write(_written(response))
        if cycle:  # its application is told that the caller is gone
            cycle.disconnected = True
            cycle.message_event.set()
        self._close()

    def _close(self) -> None:
        """Close, whether or not the caller takes what was written last."""
        self._stop_waiting()
        self.transport.close()
        if self.transport.get_write_buffer_size() and self._answer_timer is None:
            self._start_answer_timer()

    def _start_answer_timer(self) -> None:
        self._stop_answer_timer()
        self._answer_timer = self._later(self.deadlines.answer, self._not_taken)

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _later(self, seconds: float, call: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        """A timer that knows nothing of the request in whose context it was set."""
        return self.loop.call_later(seconds, call, *args, context=contextvars.Context())

    def _not_taken(self) -> None:
        self._count("answer")
        self.transport.abort()


def _written(response: Response) -> bytes:
    """`response` as it goes over the wire."""
    status = response.status_code
    head = [b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status])]
    head += [b"%s: %s" % pair for pair in response.raw_headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + bytes(response.body)
