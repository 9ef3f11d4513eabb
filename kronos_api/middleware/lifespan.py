"""Start and stop of the service, as the server sees them."""

from __future__ import annotations

from typing import Final, Protocol

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import StartupError
from kronos_api.security.peers import Peers

log = structlog.stdlib.get_logger("kronos_api.lifespan")

STATE: Final = "service"
"""Under this name the server finds what starts and stops, in the state of the lifespan."""


PEERS: Final = "peers"
"""And under this one what says whether a peer is listed."""


class Lifecycle(Protocol):
    """What starts and stops."""

    async def start(self) -> None:
        """Called before the port opens; raises `StartupError`."""
        ...

    async def stop(self) -> None:
        """Called after the last answer."""
        ...


class Lifespan:
    """Start `service` before the port opens and stop it after the last answer.

    `peers` tells the server whether a peer is listed.

    A `StartupError` becomes the one line with which the server refuses to start; a framework's
    own handling would print a traceback.
    """

    def __init__(self, app: ASGIApp, *, service: Lifecycle, peers: Peers | None = None) -> None:
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
            log.exception("defect at start")
            message = "The service failed to start because of a defect."
            await send({"type": "lifespan.startup.failed", "message": message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self.service.stop()
        except Exception:
            log.exception("defect at stop")
            await send(
                {"type": "lifespan.shutdown.failed", "message": "The service failed to stop."}
            )
            return
        await send({"type": "lifespan.shutdown.complete"})
