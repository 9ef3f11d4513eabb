"""Accepts JSON bodies only."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from kronos_api.errors import UnsupportedMediaType
from kronos_api.middleware.body_limit import has_body
from kronos_api.middleware.decoding import DECODERS, content_encoding
from kronos_api.middleware.envelope import render
from kronos_api.middleware.rate_limit import PREFIX

_SHOWN: Final = 100
"""Characters of a header that a message repeats."""
_JSON: Final = re.compile(r"application/(?:[\w.!#$&^-]+\+)?json", re.ASCII | re.IGNORECASE)
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)


class MediaType:
    """Refuse a body that is not JSON, or not encoded as `DECODERS` can decode.

    This holds below `PREFIX` and for `paths`.

    This comes before the rate limit. A web page of any origin can send text/plain, a form or no
    type without a preflight, but JSON only after one.
    """

    def __init__(self, app: ASGIApp, *, paths: Collection[str] = ()) -> None:
        self.app = app
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (PREFIX in scope["path"] or scope["path"] in self.paths):
            headers = Headers(scope=scope)
            problem = has_body(headers) and (_type_problem(headers) or _encoding_problem(headers))
            if problem:
                await render(UnsupportedMediaType(problem), scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _type_problem(headers: Headers) -> str | None:
    """The message for a Content-Type that is not accepted; None if it is JSON in UTF-8."""
    accepted = "send Content-Type: application/json (curl: -H 'Content-Type: application/json')"
    found = ", ".join(headers.getlist("content-type"))
    if not found:
        return f"The body has no Content-Type; {accepted}."
    media_type, _, parameters = found.partition(";")
    if not _JSON.fullmatch(media_type.strip()):
        return f"Content-Type is {found[:_SHOWN]!a}; {accepted}."
    charset = _CHARSET.search(parameters)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        return f"The charset of the body is {charset[1][:_SHOWN]!a}; send UTF-8."
    return None


def _encoding_problem(headers: Headers) -> str | None:
    """The message for a Content-Encoding that is not accepted; None if it can be decoded."""
    found = content_encoding(headers)
    if not found or found in DECODERS:
        return None
    accepted = " or ".join(DECODERS)
    return f"Content-Encoding is {found[:_SHOWN]!a}; send {accepted}, or no Content-Encoding."
