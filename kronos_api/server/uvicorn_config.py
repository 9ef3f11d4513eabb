"""Options of the server, the same for every way to start it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from kronos_api.server.connection_limit import ConnectionLimit
from kronos_api.server.deadlines import Deadlines
from kronos_api.server.http_protocol import Protocol
from kronos_api.server.pace import Pace


def options(
    deadlines: Deadlines,
    *,
    shutdown_timeout: float,
    max_body: float = math.inf,
    connections: tuple[float, float] = (math.inf, math.inf),
) -> dict[str, Any]:
    """Options of `uvicorn.Config`.

    `max_body`: bytes of a chunked body at most. `connections`: open connections of an unlisted and
    of a listed peer at most, in one process. uvicorn's handling of proxy headers is off, because it
    would let a request set its own address.
    """
    return {
        "http": partial(
            Protocol,
            deadlines=deadlines,
            max_body=max_body,
            limit=ConnectionLimit(*connections),
            pace=Pace(),
        ),
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "timeout_keep_alive": math.ceil(deadlines.idle) + 1,
        "timeout_graceful_shutdown": math.ceil(shutdown_timeout),
    }
