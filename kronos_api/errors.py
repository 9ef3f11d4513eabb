"""Typed errors of the service, each with its HTTP status and code.

This module does not depend on FastAPI. The HTTP layer renders every `KronosError` in one shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

GONE: Final = 499
"""Status that is logged and counted for a client that disconnected, which gets no response."""
Detail = Mapping[str, object]


class StartupError(Exception):
    """The service cannot start; the message is one line for the operator."""


class KronosError(Exception):
    """An error that is returned to the caller.

    `message` says what is wrong, what was found and accepted, and which setting or field changes
    it. `details`: objects that name the violations (field, index, constraint). `retry_after`:
    seconds, sent as `Retry-After`.
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
    """An unhandled exception; the message reveals nothing of it."""

    def __init__(self) -> None:
        super().__init__(
            "The service failed to answer because of an unhandled exception. Its log has the reason"
            " near this request_id."
        )


class InvalidInput(KronosError):
    """The request breaks a rule of the contract."""

    status = 400
    code = "INVALID_INPUT"


class WorkTooLarge(KronosError):
    """The forecast would exceed KRONOS_INFERENCE_TIMEOUT at the measured rate."""

    status = 400
    code = "WORK_TOO_LARGE"


class MalformedJson(KronosError):
    """The body is not JSON."""

    status = 400
    code = "MALFORMED_JSON"


class MalformedBody(KronosError):
    """The body cannot be decoded by its Content-Encoding."""

    status = 400
    code = "MALFORMED_BODY"


class MalformedRequest(KronosError):
    """The bytes of the request are not valid HTTP."""

    status = 400
    code = "MALFORMED_REQUEST"


class Unauthenticated(KronosError):
    """The caller has no API key or token, or one that is not valid."""

    status = 401
    code = "UNAUTHENTICATED"


class InsufficientScope(KronosError):
    """The caller's API key does not cover the path."""

    status = 403
    code = "INSUFFICIENT_SCOPE"


class ContainerNotAllowed(KronosError):
    """The caller is not on the whitelist."""

    status = 403
    code = "CONTAINER_NOT_ALLOWED"


class CallerBlocked(KronosError):
    """The operator has blocked the caller."""

    status = 403
    code = "CALLER_BLOCKED"


class HostNotAllowed(KronosError):
    """The Host header is not a name of this service."""

    status = 403
    code = "HOST_NOT_ALLOWED"


class OriginNotAllowed(KronosError):
    """A web page of another origin calls."""

    status = 403
    code = "ORIGIN_NOT_ALLOWED"


class NotFound(KronosError):
    """The path does not exist."""

    status = 404
    code = "NOT_FOUND"


class MethodNotAllowed(KronosError):
    """The path does not accept the method."""

    status = 405
    code = "METHOD_NOT_ALLOWED"


class RequestTimeout(KronosError):
    """The request was not complete before its deadline."""

    status = 408
    code = "REQUEST_TIMEOUT"


class IdempotencyInProgress(KronosError):
    """The first request with this Idempotency-Key has no response yet."""

    status = 409
    code = "IDEMPOTENCY_IN_PROGRESS"


class IdempotencyConflict(KronosError):
    """The Idempotency-Key belongs to another request."""

    status = 422
    code = "IDEMPOTENCY_CONFLICT"


class RequestTooLarge(KronosError):
    """The body exceeds the limit, by its declared or its actual length."""

    status = 413
    code = "REQUEST_TOO_LARGE"


class UnsupportedMediaType(KronosError):
    """The body has a type or an encoding that is not accepted."""

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
    """Request line and headers exceed the limit."""

    status = 431
    code = "HEADERS_TOO_LARGE"

    def __init__(self, message: str) -> None:
        # For clients of version 0.1, until 0.3.
        super().__init__(message, details=[{"previous_code": "HEAD_TOO_LARGE"}])


class CallerUnknown(KronosError):
    """The caller cannot be identified: DNS did not answer, or keys of tokens cannot be fetched."""

    status = 503
    code = "CALLER_UNKNOWN"


class ModelNotReady(KronosError):
    """The model is still loading, or failed to load."""

    status = 503
    code = "MODEL_NOT_READY"


class QueueFull(KronosError):
    """A limit on waiting or concurrent requests is reached."""

    status = 503
    code = "QUEUE_FULL"


class ShuttingDown(KronosError):
    """The service is draining and accepts no new requests."""

    status = 503
    code = "SHUTTING_DOWN"


class PredictionTimeout(KronosError):
    """The deadline passed, and decoding has stopped."""

    status = 504
    code = "PREDICTION_TIMEOUT"


def error_codes() -> list[str]:
    """The codes of all errors that a response can have, sorted."""
    found, classes = set(), [KronosError]
    while classes:
        error = classes.pop()
        found.add(error.code)
        classes += error.__subclasses__()
    return sorted(found)
