"""HTTP on one connection: uvicorn's protocol, with deadlines and bounded parsing for each client.

A client that sends nothing, sends headers or a body slowly, does not take its response, or leaves a
connection idle is disconnected at a deadline. No deadline applies to a complete request that waits
for its forecast. Bytes are parsed in bounded pieces, so that no client blocks the event loop.
Refusals of the server have the error envelope. uvicorn's own protocol does none of these.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from kronos_api.errors import KronosError, RequestTooLarge
from kronos_api.middleware.callers import caller_label
from kronos_api.middleware.lifespan import PEERS
from kronos_api.security.callers import Connection
from kronos_api.server.connection_limit import ConnectionLimit
from kronos_api.server.deadlines import Deadlines, Step, StepTimer, Timer, count_slow_caller
from kronos_api.server.error_response import error_of, refusal
from kronos_api.server.half_closed import HalfClosed
from kronos_api.server.lingering import Lingering
from kronos_api.server.pace import Pace
from kronos_api.server.parser import EVENTS_PER_TURN, Parser
from kronos_api.server.turns import Turns
from kronos_api.server.worker_load import LOAD, WorkerLoad
from kronos_api.telemetry.metrics import metrics


class Protocol(H11Protocol):
    """One connection. `scope["state"]["connection"]` is the same for all of its requests."""

    def __init__(
        self,
        *args: Any,
        deadlines: Deadlines,
        max_body: float,
        limit: ConnectionLimit,
        pace: Pace,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.app = self._respond
        self.load: WorkerLoad = self.app_state.get(LOAD) or WorkerLoad()
        self.limit = limit
        self.pace = pace
        self.conn: Parser = Parser(max_body)
        self.deadlines = deadlines
        self._step = StepTimer(self.loop, deadlines, self._missed)
        self._send_timer = Timer(self.loop)
        self._draining = False
        self._half_closed: HalfClosed | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._link = Lingering(transport, self._is_receiving, self._resume_body)
        super().connection_made(self._link)  # type: ignore[arg-type]
        self._peer: str | None = self.client[0] if self.client else None
        self.app_state = {**self.app_state, "connection": Connection(self._peer)}
        peers = self.app_state.get(PEERS)
        self._turns = Turns(self._link, self._parse_more, self.pace, self._peer, peers)
        if self._peer is not None:
            self.limit.opened(self._peer, peers, self._link.abort)
        self._turns.keep_pace()
        self._set_deadline("headers")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            self._link.discard()
            return
        super().data_received(data)
        self._after_parsing()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has closed its sending side; whether it may still get a response.

        May be called again, after reading was paused.
        """
        theirs = self.conn.their_state
        if self.transport.is_closing() or theirs not in (h11.DONE, h11.MUST_CLOSE):
            return False
        if self._half_closed is None:
            self._half_closed = HalfClosed(self.loop, self._link, self._responds)
        return True

    def handle_events(self) -> None:
        """Parse a bounded part of the received bytes, and the rest in later turns of the loop."""
        if self._turns.rests:
            return
        self.conn.events_left = EVENTS_PER_TURN
        super().handle_events()
        if not self.conn.wants_body:  # until the application reads the body
            self.flow.pause_reading()
        elif not self.conn.events_left:
            self._turns.soon()

    def _resume_body(self) -> None:
        """Called when the application reads the body, or has responded without it."""
        if not self.conn.wants_body and not self.transport.is_closing():
            self.conn.wants_body = True
            self._turns.soon()

    def _parse_more(self) -> None:
        if not self.transport.is_closing():
            self.handle_events()
            if not self._turns.planned:
                self._link.hold(False)
            self._after_parsing()

    def _after_parsing(self) -> None:
        # The late end of a body whose response is out does not begin the next request's headers.
        cycle: RequestResponseCycle | None = self.cycle
        responded = cycle is not None and cycle.response_complete
        self._set_deadline("idle" if responded and not self.conn.trailing_data[0] else "headers")

    def on_response_complete(self) -> None:
        # Pipelined bytes and deadlines belong to the next request, and so do their log lines.
        fresh = contextvars.Context()
        self._turns.responded(identified="caller" in self.cycle.scope["state"])
        fresh.run(super().on_response_complete)
        fresh.run(self._set_deadline, "idle")

    def shutdown(self) -> None:
        """Drain: announce the next response as the last one. May be called again.

        An idle connection is not closed, because a request may be in flight to it.
        """
        self._draining = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._step.stop()
        self._send_timer.stop()
        if self._half_closed is not None:
            self._half_closed.stop()
        self._turns.stop()
        if self._peer is not None:
            self.limit.ended(self._peer)
        self.load.note(self, busy=False)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._send_timer.stop()
        if self.transport.is_closing():
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:
        """Refuse malformed HTTP; called while h11's error is handled."""
        self._refuse(error_of(sys.exception(), msg))

    def _is_receiving(self) -> bool:
        """Whether a request is incomplete; a malformed one always is."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and decide at the start of its response whether it is the last."""

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_last():
                message = {**message, "headers": [*message.get("headers", []), CLOSE_HEADER]}
            await send(message)

        await self.config.loaded_app(scope, receive, respond)

    def _is_last(self) -> bool:
        """Whether the connection closes after this response.

        It does if its client would be served sooner by another worker. Requests that are pipelined
        behind this one still get their responses.
        """
        ends = self._draining or self._half_closed is not None or self.load.uneven
        return ends and not self.conn.trailing_data[0]

    def _responds(self) -> bool:
        """Whether the response to the request in progress has begun."""
        cycle: RequestResponseCycle = self.cycle
        return bool(cycle.response_started)

    def _set_deadline(self, between_requests: Step) -> None:
        """Start the deadline of the client's next step: `between_requests`, or its body."""
        theirs = self.conn.their_state
        parsed = not self._turns.planned and self.conn.wants_body
        ended = self._half_closed is not None and parsed and theirs in (h11.IDLE, h11.SEND_BODY)
        self.load.note(self, busy=theirs is not h11.IDLE or between_requests != "idle")
        if self.transport.is_closing() or ended:
            self._close()
        elif theirs is h11.SEND_BODY:
            self._step.start("body", self.cycle)
        elif theirs is h11.IDLE:
            self._step.start(between_requests)
        else:  # the request is complete
            self._step.stop()

    def _missed(self, step: Step) -> None:
        """The client did not take `step` in time."""
        if step == "body" and self.flow.read_paused:  # the server does not read
            self._step.start("body", self.cycle)
            return
        if step == "idle" and not self.conn.trailing_data[0]:
            self._close()
            return
        count_slow_caller(step, self._peer)
        if step == "body" or self.conn.trailing_data[0]:
            self._refuse(self.deadlines.timeout(step))
        else:
            self._close()

    def _refuse(self, error: KronosError) -> None:
        """Send `error` if no response has begun, and close."""
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.response_complete:
            cycle = None
        self._turns.refused()
        if isinstance(error, RequestTooLarge) and cycle is not None:
            metrics.size_rejections.labels(caller_label(dict(cycle.scope))).inc()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(refusal(error, dict(cycle.scope) if cycle else {}))
        if cycle:  # its application receives http.disconnect
            cycle.disconnected = True
            cycle.message_event.set()
        self._close()

    def _close(self) -> None:
        """Close; unsent bytes have the deadline `send`."""
        self._step.stop()
        self.transport.close()
        if self.transport.get_write_buffer_size() and not self._send_timer.runs:
            self._start_send_timer()

    def _start_send_timer(self) -> None:
        self._send_timer.start(self.deadlines.send, self._not_taken)

    def _not_taken(self) -> None:
        count_slow_caller("send", self._peer)
        self.transport.abort()
