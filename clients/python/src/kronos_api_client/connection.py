"""How both clients set up httpx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from kronos_api_client.messages import Request

TIMEOUT: Final = 75.0
"""Seconds for one response: longer than the service's own KRONOS_REQUEST_TIMEOUT (60 s)."""
CONNECT_TIMEOUT: Final = 5.0
LIMITS: Final = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=3.0
)
"""httpx's own, except that an idle connection is given up before the service closes it
(GUNICORN_KEEPALIVE, 5 s): a request that is sent as it closes would have no response."""
MAX_WAIT: Final = 120.0
"""Seconds in which a request is tried again: two windows of the service's rate limit."""


def options(
    base_url: str,
    timeout: float | httpx.Timeout,
    headers: Mapping[str, str] | None,
    version: str,
    transport: object,
) -> dict[str, Any]:
    """Arguments of `httpx.Client` and `httpx.AsyncClient`."""
    if not isinstance(timeout, httpx.Timeout):
        timeout = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))
    user_agent = {"User-Agent": f"kronos-api-client/{version}"}
    return {
        "base_url": base_url,
        "timeout": timeout,
        "headers": user_agent | dict(headers or {}),
        "limits": LIMITS,
        "transport": transport,
        # Proxies of the environment would go before the transport.
        "trust_env": transport is None,
    }


def arguments(request: Request) -> dict[str, Any]:
    """Arguments of `request` of both httpx clients."""
    return {
        "method": request.method,
        "url": request.path,
        "content": request.content,
        "headers": request.headers,
    }


def has_events(response: httpx.Response) -> bool:
    """Whether `response` is a stream of server-sent events, and not an error."""
    kind: str = response.headers.get("Content-Type", "")
    return response.status_code == httpx.codes.OK and kind.startswith("text/event-stream")
