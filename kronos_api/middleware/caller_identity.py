"""Lets those callers through that the whitelist names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import CallerUnknown, ContainerNotAllowed, KronosError
from kronos_api.middleware.envelope import render
from kronos_api.security.identity import OTHER, Caller, Connection, Identity, Settled
from kronos_api.security.resolver import ResolverOut
from kronos_api.security.whitelist import Address, parse_address
from kronos_api.telemetry.metrics import metrics

FORWARDED: Final = "X-Forwarded-For"
NOT_LISTED: Final = (
    "No entry of KRONOS_CONTAINER_WHITELIST names this caller. Add its container, service, address "
    "or address block there; the service's log line `caller refused` has its address."
)
"""Message of a 403, without the address: behind a proxy that would be the proxy's."""
_SHOWN: Final = 200
"""Characters of a path in a log line."""

log = structlog.stdlib.get_logger("kronos_api.security")


class CallerIdentity:
    """Settle who calls and put it into `scope["state"]["caller"]`; refuse whom nobody named.

    Who calls is told by the address of the connection's peer alone. An entry that is an address or
    a block settles it for all requests of a connection; one that is a name is looked up for each
    request, from answers of DNS that are two seconds old at most. If the peer is one of `proxies`,
    the last address that it wrote into `X-Forwarded-For` is looked up instead, for each request.
    Nothing else that a request says is looked at. Paths in `exempt` are open to everyone.

    Without `allowed` everybody passes, and is told apart by address.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed: Identity | None,
        proxies: Identity,
        exempt: Collection[str],
    ) -> None:
        self.app = app
        self.allowed = allowed
        self.proxies = proxies
        self.exempt = frozenset(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        try:
            caller = await self._settle(scope)
        except KronosError as refusal:
            response = render(refusal, scope)
            # Its body is not read, so nothing can follow on this connection.
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        structlog.contextvars.bind_contextvars(container_name=caller.name)
        await self.app(scope, receive, send)

    async def _settle(self, scope: Scope) -> Caller:
        """The caller, if it may call; raises `KronosError`."""
        connection: Connection | None = scope.get("state", {}).get("connection")
        if connection is None:  # a server of another kind: each request is taken for itself
            connection = Connection(scope["client"][0] if scope.get("client") else None)
        peer = parse_address(connection.peer)
        if peer is None:
            raise self._refuse(scope, connection.peer, "the peer has no address")
        try:
            if connection.caller is not None:
                if await self._still(self.allowed, connection.caller, peer, connection):
                    return connection.caller.caller
                connection.caller = None
            return await self._identify(scope, connection, peer)
        except ResolverOut as error:
            metrics.security_events.labels("unknown", OTHER).inc()
            log.error("caller unknown", peer=str(peer), reason=str(error), **_asked(scope))
            raise CallerUnknown("Who calls could not be told: DNS did not answer.") from None

    async def _still(
        self, among: Identity | None, settled: Settled, peer: Address, connection: Connection
    ) -> bool:
        return among is None or await among.holds(settled, peer, connection.opened)

    async def _identify(self, scope: Scope, connection: Connection, peer: Address) -> Caller:
        """The caller, whom nothing that holds has named yet; raises `ResolverOut`."""
        # A peer that was a proxy is no caller of its own later: those behind it would pass as it.
        proxy = connection.proxy
        if proxy is not None and not await self._still(self.proxies, proxy, peer, connection):
            raise self._refuse(scope, str(peer), "the peer is no trusted proxy any more")
        known = connection.is_proxy
        address, caller = await self._named(scope, connection, peer)
        if caller is None:  # a peer that has just started is missing in older answers
            if not known:
                connection.is_proxy = connection.proxy = None
            address, caller = await self._named(scope, connection, peer, refresh=True)
        if caller is None:
            raise self._refuse(scope, str(address), "no entry of the whitelist names the caller")
        if self.allowed is not None:
            metrics.security_events.labels("allowed", caller.label).inc()
            log.info(
                "caller allowed", peer=str(address), entry=caller.label, container=caller.container
            )
        if not connection.is_proxy:
            connection.caller = (
                Settled(caller)
                if self.allowed is None
                else self.allowed.settled(caller, peer, connection.opened)
            )
        return caller

    async def _named(
        self, scope: Scope, connection: Connection, peer: Address, *, refresh: bool = False
    ) -> tuple[Address, Caller | None]:
        """Who calls, from where; None if no entry of the whitelist names the caller."""
        if connection.is_proxy is None:
            proxy = await self.proxies.settle(peer, refresh=refresh)
            connection.is_proxy = proxy is not None
            if proxy is not None:
                connection.proxy = self.proxies.settled(proxy, peer, connection.opened)
        address = self._forwarded(scope) if connection.is_proxy else peer
        if address is None:
            if not refresh:  # its address may have been that of a proxy until now
                return peer, None
            metrics.security_events.labels("unnamed", OTHER).inc()
            raise self._refuse(scope, str(peer), f"the proxy sent no address in {FORWARDED}")
        if self.allowed is None:
            return address, Caller(OTHER, str(address))
        local = peer.is_loopback if connection.is_proxy else True
        return address, await self.allowed.settle(address, local=local, refresh=refresh)

    def _forwarded(self, scope: Scope) -> Address | None:
        """For whom a proxy speaks: the last address of the header, the one that it wrote."""
        given = Headers(scope=scope).getlist(FORWARDED)
        return parse_address(given[-1].rpartition(",")[2].strip()) if given else None

    def _refuse(self, scope: Scope, peer: str | None, reason: str) -> ContainerNotAllowed:
        metrics.security_events.labels("refused", OTHER).inc()
        log.warning("caller refused", peer=peer, reason=reason, **_asked(scope))
        return ContainerNotAllowed(NOT_LISTED)


def _asked(scope: Scope) -> dict[str, str]:
    return {"method": scope["method"], "path": scope["path"][:_SHOWN]}
