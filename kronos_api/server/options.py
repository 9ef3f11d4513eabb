"""How the server is run, whoever starts it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from kronos_api.server.protocol import Deadlines, Protocol


def options(deadlines: Deadlines, *, shutdown_timeout: float) -> dict[str, Any]:
    """Options of `uvicorn.Config`.

    The server's own idea of proxies is off: it would let a request say where it comes from.
    """
    return {
        "http": partial(Protocol, deadlines=deadlines),
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "timeout_keep_alive": math.ceil(deadlines.idle) + 1,
        "timeout_graceful_shutdown": math.ceil(shutdown_timeout),
    }
