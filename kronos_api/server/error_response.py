"""What the server answers by itself, ahead of the application."""

from __future__ import annotations

import contextvars
import uuid

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES

from kronos_api.errors import KronosError
from kronos_api.middleware.envelope import render
from kronos_api.middleware.request_id import HEADER


def refusal(error: KronosError, scope: Scope) -> bytes:
    """`error` in its envelope as it is sent; the last answer of its connection.

    `scope`: of the request that is refused, if its headers were read.
    """
    request_id = scope.setdefault("state", {}).setdefault("request_id", uuid.uuid4().hex)
    # In a context of its own: what is bound for this refusal's lines ends with it.
    response = contextvars.copy_context().run(render, error, scope)
    response.headers.update({HEADER: request_id, "Connection": "close"})
    status = response.status_code
    head = [b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status])]
    head += [b"%s: %s" % pair for pair in response.raw_headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + bytes(response.body)
