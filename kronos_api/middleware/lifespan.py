"""Start and stop of the service by the lifespan protocol of ASGI."""

from __future__ import annotations

from typing import Final, Protocol

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import StartupError
from kronos_api.security.peers import Peers

log = structlog.stdlib.get_logger("kronos_api.lifespan")

STATE: Final = "service"
"""Name of the service in the state of the lifespan, where the server reads it."""

PEERS: Final = "peers"
"""Name of the `Peers` there."""


class Managed(Protocol):
    """The parts of the service that start and stop."""

    async def start(self) -> None:
        """Start before the port opens; raises `StartupError`."""
        ...

    async def stop(self) -> None:
        """Stop after the last response."""
        ...


class Lifespan:
    """Start `service` before the port opens and stop it after the last response.

    `peers` is passed on to the server. A `StartupError` becomes the one line with which the server
    ends; the framework's own handling prints a traceback.
    """

    def __init__(self, app: ASGIApp, *, service: Managed, peers: Peers | None = None) -> None:
        self.app = app
        self.service = service
        self.peers = peers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        scope.get("state", {}).update({STATE: self.service, PEERS: self.peers})
        await receive()
        try:
            await self.service.start()
        except StartupError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        except Exception:
            log.exception("unhandled_exception", phase="startup")
            message = (
                "The service failed to start: unhandled exception, with a traceback in the log."
            )
            await send({"type": "lifespan.startup.failed", "message": message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self.service.stop()
        except Exception:
            log.exception("unhandled_exception", phase="shutdown")
            await send(
                {"type": "lifespan.shutdown.failed", "message": "The service failed to stop."}
            )
            return
        await send({"type": "lifespan.shutdown.complete"})
