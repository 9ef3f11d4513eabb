"""Decodes compressed bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kronos_api.middleware.body_limit import too_large
from kronos_api.middleware.body_memory import BodyMemory
from kronos_api.middleware.decoding import DECODERS, SLICE, content_encoding


class ContentEncoding:
    """Decode gzip and zstd bodies when a route reads them.

    The content is bounded by `limit` bytes. Of it, `memory` counts piece by piece the bytes beyond
    the size of the compressed body, which is counted already. Decoding stops when either bound is
    exceeded. All pieces but the first of a small body are decoded in a thread.
    """

    def __init__(self, app: ASGIApp, *, limit: int, memory: BodyMemory) -> None:
        self.app = app
        self.limit = limit
        self.memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        decoder = DECODERS.get(content_encoding(Headers(scope=scope)))
        if decoder is None:
            await self.app(scope, receive, send)
            return
        pieces: Iterator[bytes] | None = None
        size, counted, in_thread, ended = 0, 0, False, False

        with self.memory.share(scope) as take:

            async def decoded() -> Message:
                nonlocal pieces, size, counted, in_thread, ended
                if ended:
                    return await receive()
                if pieces is None:
                    body = await _whole(receive)
                    if body is None:
                        ended = True
                        return {"type": "http.disconnect"}
                    pieces, in_thread = decoder(body, self.limit), len(body) > SLICE
                    counted = len(body)
                piece = await _next(pieces, in_thread)
                in_thread = True
                size += len(piece or b"")
                if size > self.limit:
                    found = f"The decoded body has {size} bytes or more"
                    raise too_large(scope, self.limit, found)
                take(max(size - counted, 0))
                counted = max(size, counted)
                ended = piece is None
                return {"type": "http.request", "body": piece or b"", "more_body": not ended}

            await self.app(scope, decoded, send)


async def _whole(receive: Receive) -> bytes | None:
    """The body as it was sent; None if the client has disconnected."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _next(pieces: Iterator[bytes], in_thread: bool) -> bytes | None:
    """The next of `pieces`; None at their end."""
    if in_thread:
        return await asyncio.to_thread(next, pieces, None)
    return next(pieces, None)
