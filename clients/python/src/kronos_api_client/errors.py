"""Typed errors: one class for each error code of the service.

`KronosError` is the base of all. A code that this version of the client does not know becomes a
plain `KronosError` with that code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx


class KronosError(Exception):
    """A request that the service refused or did not answer.

    Attributes:
        message: What is wrong, for people.
        code: Stable name of the error; decide by it or by the class.
        status: HTTP status; None if no response came.
        details: The violated rules: `field`, `index`, `constraint`; for many series also `item`,
            the number of the series, and `series_id`.
        request_id: The service's id of the request; quote it when you report a failure.
        retry_after: Seconds after which the same request may succeed; None if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.details = [dict(detail) for detail in details]
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} ({self.code}{request})" if self.code else self.message


class ConnectionFailed(KronosError):
    """No response came: no connection, or it broke, or the response took too long."""


class InvalidInput(KronosError):
    """The request violates a rule of candles, timestamps or parameters."""


class WorkTooLarge(KronosError):
    """The forecast cannot finish in the service's KRONOS_INFERENCE_TIMEOUT."""


class MalformedJson(KronosError):
    """The body is not JSON."""


class MalformedBody(KronosError):
    """The body does not match its Content-Encoding."""


class MalformedRequest(KronosError):
    """The request is not HTTP."""


class Unauthenticated(KronosError):
    """The request has no API key, or one that is not valid."""


class InsufficientScope(KronosError):
    """The API key does not cover the path."""


class ContainerNotAllowed(KronosError):
    """The service's KRONOS_CONTAINER_WHITELIST does not list this caller."""


class CallerBlocked(KronosError):
    """The operator of the service has blocked this caller."""


class HostNotAllowed(KronosError):
    """The service's KRONOS_ALLOWED_HOSTS does not list the host of the base URL."""


class OriginNotAllowed(KronosError):
    """The service's KRONOS_CORS_ORIGINS does not list the Origin header."""


class NotFound(KronosError):
    """The service has no such path: check the base URL and the service's version."""


class MethodNotAllowed(KronosError):
    """The path exists, the method does not."""


class RequestTimeout(KronosError):
    """The request did not arrive completely in time."""


class RequestTooLarge(KronosError):
    """The body exceeds the service's KRONOS_MAX_REQUEST_SIZE_MB."""


class UnsupportedMediaType(KronosError):
    """The body's type or encoding is not supported."""


class ValidationFailed(KronosError):
    """Wrong types, missing or unknown fields."""


class IdempotencyConflict(KronosError):
    """The idempotency key belongs to another request."""


class IdempotencyInProgress(KronosError):
    """The first request with this idempotency key is still in progress."""


class RateLimited(KronosError):
    """The caller's quota is used up."""


class HeadersTooLarge(KronosError):
    """Request line and headers exceed the service's limit."""


class InternalError(KronosError):
    """The service failed; its log has the reason under the request id."""


class Unavailable(KronosError):
    """The service cannot take the request at present."""


class CallerUnknown(Unavailable):
    """The service could not identify the caller because DNS did not answer."""


class ModelNotReady(Unavailable):
    """The model is loading, or failed to load."""


class QueueFull(Unavailable):
    """The service's queue of forecasts is full."""


class ShuttingDown(Unavailable):
    """The service is draining."""


class PredictionTimeout(KronosError):
    """The forecast missed its deadline; the service stopped decoding it."""


ERRORS: Final[Mapping[str, type[KronosError]]] = {
    "CALLER_UNKNOWN": CallerUnknown,
    "CONTAINER_NOT_ALLOWED": ContainerNotAllowed,
    "HEADERS_TOO_LARGE": HeadersTooLarge,
    "HEAD_TOO_LARGE": HeadersTooLarge,  # of services before HEADERS_TOO_LARGE
    "CALLER_BLOCKED": CallerBlocked,
    "HOST_NOT_ALLOWED": HostNotAllowed,
    "IDEMPOTENCY_CONFLICT": IdempotencyConflict,
    "IDEMPOTENCY_IN_PROGRESS": IdempotencyInProgress,
    "INSUFFICIENT_SCOPE": InsufficientScope,
    "INTERNAL_ERROR": InternalError,
    "INVALID_INPUT": InvalidInput,
    "MALFORMED_BODY": MalformedBody,
    "MALFORMED_JSON": MalformedJson,
    "MALFORMED_REQUEST": MalformedRequest,
    "METHOD_NOT_ALLOWED": MethodNotAllowed,
    "MODEL_NOT_READY": ModelNotReady,
    "NOT_FOUND": NotFound,
    "ORIGIN_NOT_ALLOWED": OriginNotAllowed,
    "PREDICTION_TIMEOUT": PredictionTimeout,
    "QUEUE_FULL": QueueFull,
    "RATE_LIMITED": RateLimited,
    "REQUEST_TIMEOUT": RequestTimeout,
    "REQUEST_TOO_LARGE": RequestTooLarge,
    "SHUTTING_DOWN": ShuttingDown,
    "UNAUTHENTICATED": Unauthenticated,
    "UNSUPPORTED_MEDIA_TYPE": UnsupportedMediaType,
    "VALIDATION_ERROR": ValidationFailed,
    "WORK_TOO_LARGE": WorkTooLarge,
}
"""The class of each error code."""


def place(response: httpx.Response) -> str:
    """The URL that answered, without a password."""
    return str(response.url.copy_with(username=None, password=None))


def error_of_content(
    content: Mapping[str, Any],
    request_id: str | None,
    *,
    status: int = httpx.codes.OK,
    retry_after: float | None = None,
) -> KronosError:
    """The error in the service's envelope, of an event or of a response.

    Raises `LookupError` or `TypeError` for another envelope.
    """
    code = str(content["code"])
    return ERRORS.get(code, KronosError)(
        str(content["message"]),
        code=code,
        status=status,
        details=[one for one in content.get("details") or () if isinstance(one, Mapping)],
        request_id=content.get("request_id") or request_id,
        retry_after=retry_after,
    )


def error_of(response: httpx.Response) -> KronosError:
    """The error that `response` carries.

    A response without the service's envelope, such as a proxy's HTML page, has the code
    `HTTP_<status>`.
    """
    status, wait = response.status_code, retry_after(response)
    request_id = response.headers.get("X-Request-ID")
    try:
        content = response.json()["error"]
        return error_of_content(content, request_id, status=status, retry_after=wait)
    except (ValueError, LookupError, TypeError):
        message = f"{place(response)} answered {status} without an error of Kronos API"
    if response.has_redirect_location:
        message += f": it redirects to {response.headers['Location']}; use that base URL"
    code = f"HTTP_{status}"
    return KronosError(message, code=code, status=status, request_id=request_id, retry_after=wait)


def retry_after(response: httpx.Response) -> float | None:
    """Seconds by Retry-After; None where the header is absent or a date."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
