"""Whom a request counts for, as caller identity has settled it."""

from __future__ import annotations

from starlette.types import Scope

from kronos_api.telemetry.metrics import OTHER

UNKNOWN = "unknown"


def caller_key(scope: Scope) -> str:
    """What counts as one caller: a container's name, else an address."""
    caller = scope.get("state", {}).get("caller")
    if caller is not None:
        return str(caller.key)
    client = scope.get("client")
    return str(client[0]) if client else UNKNOWN


def caller_label(scope: Scope) -> str:
    """The caller's name in metrics: an entry of the whitelist, or `other`."""
    caller = scope.get("state", {}).get("caller")
    return str(caller.label) if caller is not None else OTHER
