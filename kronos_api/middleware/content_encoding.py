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
    """Give the routes the content of gzip and zstd bodies, decoded when a route reads it.

    The content is bounded by `limit` bytes and counted in `memory` piece by piece, as far as it
    exceeds the compressed body, which is counted already and dropped in the end; decoding stops
    where either is exceeded. What is more than one piece is decoded in a thread.
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
                    raise too_large(scope, self.limit, "The decoded body")
                take(max(size - counted, 0))
                counted = max(size, counted)
                ended = piece is None
                return {"type": "http.request", "body": piece or b"", "more_body": not ended}

            await self.app(scope, decoded, send)


async def _whole(receive: Receive) -> bytes | None:
    """The body as it came; None if the caller has left."""
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
