"""Start and stop of the service, as the server sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import StartupError

log = structlog.stdlib.get_logger("kronos_api.lifespan")

Step = Callable[[], Awaitable[None]]


class Lifespan:
    """Run `startup` before the port opens and `shutdown` after the last answer.

    A `StartupError` becomes the one line with which the server refuses to start; a framework's
    own handling would print a traceback.
    """

    def __init__(self, app: ASGIApp, *, startup: Step, shutdown: Step) -> None:
        self.app = app
        self.startup = startup
        self.shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        await receive()
        try:
            await self.startup()
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
            await self.shutdown()
        except Exception:
            log.exception("defect at stop")
            await send(
                {"type": "lifespan.shutdown.failed", "message": "The service failed to stop."}
            )
            return
        await send({"type": "lifespan.shutdown.complete"})
