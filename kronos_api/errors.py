"""Typed errors of the service: what went wrong, in terms a caller can act on.

This module knows nothing of FastAPI. The HTTP layer maps every `KronosError` to one
envelope; `status` is carried here so that the mapping is a single line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

Detail = Mapping[str, object]


class StartupError(Exception):
    """The service cannot start; the message is the one line an operator needs."""


class KronosError(Exception):
    """A refusal or failure that a caller is told of.

    `details` is a list of objects that name what broke a rule (field, index, constraint);
    `retry_after` is in seconds and becomes a `Retry-After` header.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[Detail] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = list(details)
        self.retry_after = retry_after


class InternalError(KronosError):
    """A defect of ours; the message says nothing of the inside."""

    def __init__(self) -> None:
        super().__init__("The service failed to answer; the failure has been logged.")


class InvalidInput(KronosError):
    """The request breaks a rule of the contract."""

    status = 400
    code = "INVALID_INPUT"


class WorkTooLarge(KronosError):
    """The forecast cannot be done in KRONOS_INFERENCE_TIMEOUT at the measured rate."""

    status = 400
    code = "WORK_TOO_LARGE"


class MalformedJson(KronosError):
    """The body is not JSON."""

    status = 400
    code = "MALFORMED_JSON"


class MalformedBody(KronosError):
    """The body is not what its Content-Encoding says."""

    status = 400
    code = "MALFORMED_BODY"


class MalformedRequest(KronosError):
    """What came is not HTTP."""

    status = 400
    code = "MALFORMED_REQUEST"


class ContainerNotAllowed(KronosError):
    """The caller is not on the whitelist."""

    status = 403
    code = "CONTAINER_NOT_ALLOWED"


class HostNotAllowed(KronosError):
    """The Host header names a host that is not ours."""

    status = 403
    code = "HOST_NOT_ALLOWED"


class OriginNotAllowed(KronosError):
    """A web page of another origin calls."""

    status = 403
    code = "ORIGIN_NOT_ALLOWED"


class NotFound(KronosError):
    """No such path."""

    status = 404
    code = "NOT_FOUND"


class MethodNotAllowed(KronosError):
    """The path exists, the method does not."""

    status = 405
    code = "METHOD_NOT_ALLOWED"


class RequestTimeout(KronosError):
    """The request did not come in whole in time."""

    status = 408
    code = "REQUEST_TIMEOUT"


class RequestTooLarge(KronosError):
    """The body is over the limit, declared or counted."""

    status = 413
    code = "REQUEST_TOO_LARGE"


class UnsupportedMediaType(KronosError):
    """The body has a type or an encoding that is not read."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"


class ValidationFailed(KronosError):
    """Wrong types or missing fields."""

    status = 422
    code = "VALIDATION_ERROR"


class RateLimited(KronosError):
    """The caller's quota is used up."""

    status = 429
    code = "RATE_LIMITED"


class HeadersTooLarge(KronosError):
    """Request line and headers are over the limit."""

    status = 431
    code = "HEAD_TOO_LARGE"


class CallerUnknown(KronosError):
    """Who calls could not be told, for DNS did not answer."""

    status = 503
    code = "CALLER_UNKNOWN"


class ModelNotReady(KronosError):
    """The model is still loading, or failed to load."""

    status = 503
    code = "MODEL_NOT_READY"


class QueueFull(KronosError):
    """As many requests wait as may wait."""

    status = 503
    code = "QUEUE_FULL"


class ShuttingDown(KronosError):
    """The service is draining and takes no new work."""

    status = 503
    code = "SHUTTING_DOWN"


class PredictionTimeout(KronosError):
    """The deadline passed; decoding has stopped."""

    status = 504
    code = "PREDICTION_TIMEOUT"


def error_codes() -> list[str]:
    """The codes of all errors that a caller can be told, sorted."""
    found, classes = set(), [KronosError]
    while classes:
        error = classes.pop()
        found.add(error.code)
        classes += error.__subclasses__()
    return sorted(found)
