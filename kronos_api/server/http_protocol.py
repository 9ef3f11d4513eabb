"""HTTP on one connection: uvicorn's protocol, with deadlines and bounded work for each client.

A client that sends nothing, sends a head or a body slowly, does not take its answer, or keeps a
connection that it does not use, is disconnected in time. None of these deadlines applies to a
complete request that waits for its forecast. What a client sends is parsed in bounded pieces,
so no client holds up the event loop. What the server itself refuses is answered with the error
envelope.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

import h11
import structlog
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from kronos_api.errors import (
    HeadersTooLarge,
    KronosError,
    MalformedRequest,
    RequestTimeout,
    RequestTooLarge,
)
from kronos_api.middleware.callers import caller_label
from kronos_api.middleware.lifespan import PEERS
from kronos_api.security.identity import Connection
from kronos_api.server.connection_limit import ConnectionLimit
from kronos_api.server.deadlines import Deadlines, Timer, Wait
from kronos_api.server.error_response import refusal
from kronos_api.server.half_closed import HalfClosed
from kronos_api.server.lingering import Lingering
from kronos_api.server.parser import EVENTS_PER_TURN, MAX_HEAD, Parser, Refused
from kronos_api.telemetry import metrics

log = structlog.stdlib.get_logger(__name__)


class Protocol(H11Protocol):
    """One connection. `scope["state"]["connection"]` is the same for all of its requests."""

    def __init__(
        self,
        *args: Any,
        deadlines: Deadlines,
        max_body: float,
        limit: ConnectionLimit,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.limit = limit
        self.conn: Parser = Parser(max_body)
        self.deadlines = deadlines
        self._wait: tuple[Wait, object] | None = None
        self._timer = Timer(self.loop)
        self._answer_timer = Timer(self.loop)
        self._leaving = False
        self._half_closed: HalfClosed | None = None
        self._parsing: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._link = Lingering(transport, self._caller_sends, self._wants_more)
        super().connection_made(self._link)  # type: ignore[arg-type]
        peer = self.client[0] if self.client else None
        self.app_state = {**self.app_state, "connection": Connection(peer)}
        if peer is not None:
            self.limit.opened(peer, self.app_state.get(PEERS), self._link.abort)
        self._await_caller("head")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            self._link.drop()
            return
        super().data_received(data)
        self._has_parsed()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more; whether it may still get an answer.

        May be called again, after reading was paused.
        """
        theirs = self.conn.their_state
        if self.transport.is_closing() or theirs not in (h11.DONE, h11.MUST_CLOSE):
            return False
        if self._half_closed is None:
            self._half_closed = HalfClosed(self.loop, self._link, self._answers)
            self._say_last()
        return True

    def handle_events(self) -> None:
        """Parse a bounded part of what has come, and the rest in later turns of the loop."""
        self.conn.events_left = EVENTS_PER_TURN
        super().handle_events()
        if not self.conn.wants_body:  # until the application asks for it
            self.flow.pause_reading()
        elif not self.conn.events_left:
            self._parse_soon()

    def _wants_more(self) -> None:
        """The application reads the body, or has answered without it."""
        if not self.conn.wants_body and not self.transport.is_closing():
            self.conn.wants_body = True
            self._parse_soon()

    def _parse_soon(self) -> None:
        """Go on parsing in the next turn of the loop; nothing is read until then."""
        if self._parsing is None:
            self._link.hold(True)
            self._parsing = self.loop.call_soon(self._parse_on, context=contextvars.Context())

    def _parse_on(self) -> None:
        self._parsing = None
        if self.transport.is_closing():
            return
        self.handle_events()
        if self._parsing is None:
            self._link.hold(False)
        self._has_parsed()

    def _has_parsed(self) -> None:
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
        self._answer_timer.stop()
        if self._half_closed is not None:
            self._half_closed.stop()
        if self._parsing is not None:
            self._parsing.cancel()
        if self.client:
            self.limit.ended(self.client[0])
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_answer_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answer_timer.stop()
        if self.transport.is_closing():
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; called while h11's error is handled."""
        cause = sys.exception()
        hint = cause.error_status_hint if isinstance(cause, h11.RemoteProtocolError) else 400
        if isinstance(cause, Refused):
            self._refuse(cause.error)
        elif hint == 431:
            self._refuse(HeadersTooLarge(f"Request line and headers exceed {MAX_HEAD} bytes."))
        else:
            self._refuse(MalformedRequest(msg))

    def _caller_sends(self) -> bool:
        """Whether a request has not come in whole; what is malformed has no end."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _say_last(self) -> None:
        """Add to the answer that is due that no other follows, if that is so."""
        cycle: RequestResponseCycle | None = self.cycle
        last = self._leaving or self._half_closed is not None
        if not last or cycle is None or cycle.response_started:
            return
        # What has been sent behind this request is still answered.
        if not self.conn.trailing_data[0] and CLOSE_HEADER not in cycle.default_headers:
            cycle.default_headers = [*cycle.default_headers, CLOSE_HEADER]

    def _answers(self) -> bool:
        """Whether the answer to the request in progress has begun."""
        cycle: RequestResponseCycle = self.cycle
        return bool(cycle.response_started)

    def _await_caller(self, between: Wait) -> None:
        """Set the deadline for what the caller must do next; `between` requests, for this."""
        theirs = self.conn.their_state
        parsed = self._parsing is None and self.conn.wants_body
        ended = self._half_closed is not None and parsed and theirs in (h11.IDLE, h11.SEND_BODY)
        if self.transport.is_closing() or ended:
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
        self._timer.start(getattr(self.deadlines, wait), self._too_slow, wait)

    def _stop_waiting(self) -> None:
        self._wait = None
        self._timer.stop()

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
        if isinstance(error, RequestTooLarge) and cycle is not None:
            metrics.SIZE_REJECTIONS.labels(caller_label(dict(cycle.scope))).inc()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(refusal(error, dict(cycle.scope) if cycle else {}))
        if cycle:  # its application is told that the caller is gone
            cycle.disconnected = True
            cycle.message_event.set()
        self._close()

    def _close(self) -> None:
        """Close, whether or not the caller takes what was written last."""
        self._stop_waiting()
        self.transport.close()
        if self.transport.get_write_buffer_size() and not self._answer_timer.runs:
            self._start_answer_timer()

    def _start_answer_timer(self) -> None:
        self._answer_timer.start(self.deadlines.answer, self._not_taken)

    def _not_taken(self) -> None:
        self._count("answer")
        self.transport.abort()
