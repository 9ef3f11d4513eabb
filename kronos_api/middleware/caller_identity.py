"""Refuses callers that the whitelist does not list."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import (
    CallerBlocked,
    CallerUnknown,
    ContainerNotAllowed,
    InsufficientScope,
    KronosError,
    Unauthenticated,
)
from kronos_api.middleware.credentials import Credentials, asked
from kronos_api.middleware.envelope import render
from kronos_api.security.callers import OTHER, Caller, Connection, Identification
from kronos_api.security.identity import Identity
from kronos_api.security.resolver import ResolverUnavailable
from kronos_api.security.whitelist import Address, is_localhost, parse_address
from kronos_api.telemetry.metrics import metrics

FORWARDED: Final = "X-Forwarded-For"
NOT_LISTED: Final = (
    "No entry of KRONOS_CONTAINER_WHITELIST names this caller. Add its container, service, address "
    "or address block there; the service's log line `caller_refused` has its address."
)
"""Message of a 403. The address is left out, because behind a proxy it is the proxy's."""
UNKNOWN: Final = (
    "The caller cannot be identified, because DNS did not answer within KRONOS_DNS_TIMEOUT. Retry "
    "in 1 s; KRONOS_DNS_SERVERS sets the nameservers."
)
"""Message of a 503."""
BLOCKED: Final = (
    "The operator of this service has blocked this caller. `kronos-api block --undo NAME` allows "
    "it again; the service's log line `caller_refused` has its name."
)
"""Message of a 403 for a caller that is listed."""
log = structlog.stdlib.get_logger("kronos_api.security")


class CallerIdentity:
    """Identify the caller and put it into `scope["state"]["caller"]`; refuse unlisted callers.

    Only the address of the connection's peer identifies the caller. An entry that is an address or
    a block does so for all requests of a connection; an entry that is a name is looked up for each
    request, in answers of DNS that are at most two seconds old. If the peer is one of `proxies`,
    the last address that it wrote into `X-Forwarded-For` is looked up instead, for each request.
    Nothing else in a request is read. Paths in `exempt` are open to every caller.

    Callers with a name in `blocked()`, which is called for each request, are refused.

    Without `allowed` every caller passes, and its address identifies it.

    With `credentials`, an API key or a token names the caller in place of its address, and a
    request with one that is not valid is refused, whichever address it comes from.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed: Identity | None,
        proxies: Identity,
        exempt: Collection[str],
        credentials: Credentials | None = None,
        blocked: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self.app = app
        self.credentials = credentials or Credentials()
        self.allowed = allowed
        self.proxies = proxies
        self.exempt = frozenset(exempt)
        self.blocked = blocked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        try:
            caller = await self.credentials.caller(scope) or await self._identify(scope)
            self._refuse_blocked(scope, caller)
        except KronosError as refusal:
            response = render(refusal, scope)
            if isinstance(refusal, (Unauthenticated, InsufficientScope)):
                response.headers["WWW-Authenticate"] = self.credentials.challenge(refusal, scope)
            # Its body is not read, so nothing can follow on this connection.
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        structlog.contextvars.bind_contextvars(container_name=caller.name)
        await self.app(scope, receive, send)

    def _refuse_blocked(self, scope: Scope, caller: Caller) -> None:
        """Raise `CallerBlocked` if the operator has blocked `caller`."""
        if not caller.names.isdisjoint(self.blocked()):
            structlog.contextvars.bind_contextvars(container_name=caller.name)
            metrics.security_events.labels("blocked", caller.label).inc()
            log.warning("caller_refused", peer=caller.key, reason="blocked", **asked(scope))
            raise CallerBlocked(BLOCKED)

    async def _identify(self, scope: Scope) -> Caller:
        """The caller; raises `KronosError` if it is refused or cannot be identified."""
        connection: Connection | None = scope.get("state", {}).get("connection")
        if connection is None:  # another server: each request is a connection of its own
            connection = Connection(scope["client"][0] if scope.get("client") else None)
        peer = parse_address(connection.peer)
        if peer is None:
            raise self._refuse(scope, connection.peer, "peer_without_address")
        try:
            if connection.caller is not None:
                if await self._holds(self.allowed, connection.caller, peer, connection):
                    return connection.caller.caller
                connection.caller = None
            return await self._look_up(scope, connection, peer)
        except ResolverUnavailable as error:
            metrics.security_events.labels("unknown", OTHER).inc()
            log.error("caller_unknown", peer=str(peer), reason=str(error), **asked(scope))
            raise CallerUnknown(UNKNOWN) from None

    async def _holds(
        self, among: Identity | None, found: Identification, peer: Address, connection: Connection
    ) -> bool:
        return among is None or await among.holds(found, peer, connection.opened)

    async def _look_up(self, scope: Scope, connection: Connection, peer: Address) -> Caller:
        """The caller of a connection without a valid identification.

        Raises `KronosError`, or `ResolverUnavailable`.
        """
        # A peer that was a proxy is never a caller itself: the callers behind it would pass as it.
        proxy = connection.proxy
        if proxy is not None and not await self._holds(self.proxies, proxy, peer, connection):
            raise self._refuse(scope, str(peer), "no_longer_a_trusted_proxy")
        known = connection.is_proxy
        address, caller = await self._named(scope, connection, peer)
        if caller is None:  # older answers do not list a container that has just started
            if not known:
                connection.is_proxy = connection.proxy = None
            address, caller = await self._named(scope, connection, peer, refresh=True)
        if caller is None:
            await self._bind_name(address)
            raise self._refuse(scope, str(address), "not_listed")
        if self.allowed is not None:
            metrics.security_events.labels("allowed", caller.label).inc()
            log.debug(
                "caller_allowed", peer=str(address), entry=caller.label, container=caller.container
            )
        if not connection.is_proxy:
            connection.caller = (
                Identification(caller)
                if self.allowed is None
                else self.allowed.identification(caller, peer, connection.opened)
            )
        return caller

    async def _named(
        self, scope: Scope, connection: Connection, peer: Address, *, refresh: bool = False
    ) -> tuple[Address, Caller | None]:
        """Address and caller of a request; the caller is None if it is not listed."""
        if connection.is_proxy is None:
            proxy = await self.proxies.identify(peer, refresh=refresh)
            connection.is_proxy = proxy is not None
            if proxy is not None:
                connection.proxy = self.proxies.identification(proxy, peer, connection.opened)
        address = self._forwarded(scope) if connection.is_proxy else peer
        if address is None:
            if not refresh:  # its address can have been a proxy's until now
                return peer, None
            metrics.security_events.labels("unnamed", OTHER).inc()
            raise self._refuse(scope, str(peer), "no_forwarded_address")
        if self.allowed is None:
            return address, Caller(OTHER, str(address))
        local = is_localhost(peer) if connection.is_proxy else True
        return address, await self.allowed.identify(address, local=local, refresh=refresh)

    async def _bind_name(self, address: Address) -> None:
        """Name an unlisted caller in the log lines of its request: its container or address."""
        name = None if self.allowed is None else await self.allowed.container_at(address)
        structlog.contextvars.bind_contextvars(container_name=name or str(address))

    def _forwarded(self, scope: Scope) -> Address | None:
        """The last address of the header, which the proxy wrote; None if there is none."""
        given = Headers(scope=scope).getlist(FORWARDED)
        return parse_address(given[-1].rpartition(",")[2].strip()) if given else None

    def _refuse(self, scope: Scope, peer: str | None, reason: str) -> KronosError:
        metrics.security_events.labels("refused", OTHER).inc()
        log.warning("caller_refused", peer=peer, reason=reason, **asked(scope))
        if self.credentials.accepted:
            return Unauthenticated(self.credentials.missing)
        return ContainerNotAllowed(NOT_LISTED)
