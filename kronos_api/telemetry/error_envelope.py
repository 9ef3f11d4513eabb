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
    structlog.contextvars.bind_contextvars(code=error.code)
    content = {
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "request_id": scope.get("state", {}).get("request_id"),
    }
    return {"error": content}
