"""Error responses of the server itself, before a request reaches the application."""

from __future__ import annotations

import contextvars
import uuid

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES

from kronos_api.errors import KronosError, MalformedRequest
from kronos_api.middleware.envelope import render
from kronos_api.middleware.request_id import HEADER
from kronos_api.server.parser import Refused, headers_too_long


def error_of(cause: BaseException | None, message: str) -> KronosError:
    """The error for malformed HTTP: `cause` is h11's exception and `message` its text."""
    if isinstance(cause, Refused):
        return cause.error
    if isinstance(cause, h11.RemoteProtocolError) and cause.error_status_hint == 431:
        return headers_too_long()
    return MalformedRequest(message)


def refusal(error: KronosError, scope: Scope) -> bytes:
    """The bytes of an HTTP response with `error` in its envelope and `Connection: close`.

    `scope`: of the refused request, if its headers were read.
    """
    request_id = scope.setdefault("state", {}).setdefault("request_id", uuid.uuid4().hex)
    # In a context of its own: values bound for the log lines of this refusal end with it.
    response = contextvars.copy_context().run(render, error, scope)
    response.headers.update({HEADER: request_id, "Connection": "close"})
    status = response.status_code
    lines = [b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status])]
    lines += [b"%s: %s" % pair for pair in response.raw_headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body)
