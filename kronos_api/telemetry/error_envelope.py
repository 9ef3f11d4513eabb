"""The one shape of every error, in responses and in events of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from kronos_api.errors import KronosError
from kronos_api.telemetry.metrics import metrics


def error_envelope(error: KronosError, scope: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the response to `error`, which is counted and logged by its code.

    scope: of the request, by ASGI; its state has the request id.
    """
    metrics.errors.labels(error.code).inc()
    structlog.contextvars.bind_contextvars(code=error.code, **_violation(error))
    content = {
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "request_id": scope.get("state", {}).get("request_id"),
    }
    return {"error": content}


def _violation(error: KronosError) -> dict[str, object]:
    """Log fields of the first violation: its field and rule, and the number of those listed."""
    first = next(iter(error.details), {})
    if "field" not in first:
        return {}
    rule = first.get("constraint")
    return {"field": first["field"], "rule": rule, "violations": len(error.details)}
