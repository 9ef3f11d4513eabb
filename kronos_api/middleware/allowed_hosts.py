"""Refuses requests whose Host is not a name of this service."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import HostNotAllowed
from kronos_api.middleware.envelope import render
from kronos_api.security.whitelist import parse_address
from kronos_api.telemetry.metrics import OTHER, metrics

ANY: Final = "*"
_HOST: Final = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::\d*)?")
_BROWSERS: Final = frozenset({"127.0.0.1", "::1"})
"""Source addresses of browsers on this machine, whichever loopback address they connect to."""
_SHOWN: Final = 100

log = structlog.stdlib.get_logger("kronos_api.security")


class AllowedHosts:
    """Refuse a request whose Host is not a name of this service.

    Against DNS rebinding: a web page has its own name resolve to this machine, and then calls the
    service as its own origin, from the address of the browser. Only the Host header shows it.

    With `hosts`, every request must name one of them, or this machine if it comes from it. With
    None, requests from this machine must name this machine, or a host that public DNS cannot have:
    an address, `localhost`, or a name without a dot. Paths in `exempt` are open to every host.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None, exempt: Collection[str]
    ) -> None:
        self.app = app
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self.exempt = frozenset(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.exempt:
            # HTTP/1.0 has no Host, and browsers do not speak it.
            host = Headers(scope=scope).get("host")
            if host is not None and not self._is_own_name(host, scope):
                shown = host[:_SHOWN]
                metrics.security_events.labels("host_refused", OTHER).inc()
                log.warning("host_refused", host=shown)
                message = (
                    f"Host {shown!a} is not a name of this service. Call it by address or as "
                    "localhost, or add the host to KRONOS_ALLOWED_HOSTS."
                )
                response = render(HostNotAllowed(message), scope)
                response.headers["Connection"] = "close"
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_own_name(self, host: str, scope: Scope) -> bool:
        match = _HOST.fullmatch(host.lower())
        name = match["name"].strip("[]").removesuffix(".") if match else host
        if self.hosts is not None and (name in self.hosts or ANY in self.hosts):
            return True
        peer = parse_address(scope["client"][0] if scope.get("client") else None)
        if peer is None or str(peer) not in _BROWSERS:
            return self.hosts is None
        address = parse_address(name)
        if address is not None:
            return address.is_loopback or self.hosts is None
        if name == "localhost" or name.endswith(".localhost"):
            return True
        return self.hosts is None and bool(name) and "." not in name
