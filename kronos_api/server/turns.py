"""When the received bytes of one connection are parsed: in turns of the event loop, at a pace."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from kronos_api.security.peers import Peers
from kronos_api.server.deadlines import Timer
from kronos_api.server.lingering import Lingering
from kronos_api.server.pace import Pace
from kronos_api.telemetry.metrics import metrics


class Turns:
    """Calls `parse` in a later turn of the loop. Nothing is read from `link` until then.

    `peer` is the address of the client, and `peers` tells whether it is listed; without either, no
    pace is kept.
    """

    def __init__(
        self,
        link: Lingering,
        parse: Callable[[], None],
        pace: Pace,
        peer: str | None,
        peers: Peers | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._parse = parse
        self._pace = pace
        self._peer = peer
        self._peers = peers
        self._timer = Timer(self._loop)
        self._check: asyncio.Task[None] | None = None

    @property
    def planned(self) -> bool:
        """Whether a turn is planned."""
        return self._timer.runs

    @property
    def rests(self) -> bool:
        """Whether it is planned later than the next one, because the peer exceeds its pace."""
        return self._check is not None

    def soon(self) -> None:
        """Parse in the next turn, or when the rest ends."""
        if not self._timer.runs:
            self._link.hold(True)
            self._timer.start(0.0, self._turn)

    def refused(self) -> None:
        """A request was refused before it named a caller, and its connection closes."""
        if self._peer is not None and self._peers is not None:
            self._pace.count(self._peer, identified=False)

    def responded(self, *, identified: bool) -> None:
        """A request, with or without an identified caller, has its response; rest if need be."""
        if self._peer is not None and self._peers is not None:
            self._pace.count(self._peer, identified=identified)
            self.keep_pace()

    def keep_pace(self) -> None:
        """Rest if the peer is not listed and exceeds its pace."""
        if self._peer is None or self._peers is None or self.rests or self._link.is_closing():
            return
        if delay := self._pace.delay(self._peer):
            self._link.hold(True)
            self._timer.start(delay, self._turn)
            check = self._unless_listed(self._peer, self._peers)
            self._check = self._loop.create_task(check, context=contextvars.Context())

    async def _unless_listed(self, peer: str, peers: Peers) -> None:
        if not await peers.is_listed(peer):
            metrics.paced_requests.inc()
        elif self._timer.runs:
            self._timer.stop()
            self._turn()

    def _turn(self) -> None:
        self._check = None
        self._parse()

    def stop(self) -> None:
        """Cancel the planned turn."""
        self._timer.stop()
