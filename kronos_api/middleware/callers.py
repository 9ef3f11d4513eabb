"""The caller that a request counts for, as `CallerIdentity` has identified it."""

from __future__ import annotations

from starlette.types import Scope

from kronos_api.telemetry.metrics import OTHER

UNKNOWN = "unknown"


def caller_key(scope: Scope) -> str:
    """Identity of the caller for limits: the name of its container, else its address."""
    caller = scope.get("state", {}).get("caller")
    if caller is not None:
        return str(caller.key)
    client = scope.get("client")
    return str(client[0]) if client else UNKNOWN


def caller_label(scope: Scope) -> str:
    """Metric label of the caller: an entry of the whitelist, or `other`."""
    caller = scope.get("state", {}).get("caller")
    return str(caller.label) if caller is not None else OTHER
