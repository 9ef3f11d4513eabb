"""Compresses responses for the callers that ask for it."""

from __future__ import annotations

import asyncio
from typing import Final

import zstandard
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Receive, Scope, Send

SMALLEST: Final = 2048
"""Bytes from which on a response is compressed: smaller ones fit in two packets anyway."""
LARGE: Final = 2**15
"""Bytes from which on a response is compressed in a thread: these take about a millisecond."""
LEVEL: Final = 1
"""Of both: a response is mostly digits, for which a higher level takes four times as long and
gains a twentieth."""


class Compression:
    """Compress responses of `SMALLEST` bytes or more by the `Accept-Encoding` of the request.

    Of zstd and gzip, the one with the higher q-value is taken; zstd, which costs less, if both
    have the same. Streams of events stay as they are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        accepted = ",".join(Headers(scope=scope).getlist("accept-encoding"))
        chosen = preferred(accepted)
        if chosen == "zstd":
            responder: ASGIApp = ZstdResponder(self.app, SMALLEST)
        elif chosen == "gzip":
            responder = GZipResponder(self.app, SMALLEST, LEVEL, thread_minimum_size=LARGE)
        else:
            responder = IdentityResponder(self.app, SMALLEST)
        await responder(scope, receive, send)


class ZstdResponder(IdentityResponder):
    """As Starlette's for gzip."""

    content_encoding = "zstd"

    def __init__(self, app: ASGIApp, minimum_size: int) -> None:
        super().__init__(app, minimum_size)
        self._frame: zstandard.ZstdCompressionObj | None = None

    async def apply_compression(self, body: bytes, *, more_body: bool) -> bytes:
        """The next bytes of the frame; the client can decode all of `body` when they are there."""
        if len(body) < LARGE:
            return self._compress(body, more_body)
        return await asyncio.to_thread(self._compress, body, more_body)

    def _compress(self, body: bytes, more_body: bool) -> bytes:
        if self._frame is None:
            if not more_body:  # a frame that says how long its content is, as some clients need
                return zstandard.ZstdCompressor(LEVEL).compress(body)
            self._frame = zstandard.ZstdCompressor(LEVEL).compressobj()
        mode = (
            zstandard.COMPRESSOBJ_FLUSH_BLOCK if more_body else zstandard.COMPRESSOBJ_FLUSH_FINISH
        )
        return self._frame.compress(body) + self._frame.flush(mode)


def preferred(accepted: str) -> str | None:
    """zstd, gzip or None, by the value of an `Accept-Encoding` header."""
    qualities: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        coding, _, parameter = entry.partition(";")
        name, _, quality = parameter.partition("=")
        try:
            qualities[coding.strip()] = float(quality) if name.strip() == "q" else 1.0
        except ValueError:
            qualities[coding.strip()] = 0.0
    # "*" stands for what is not named; gzip is what every client that says so can decode.
    qualities.setdefault("gzip", qualities.get("*", 0.0))
    best = max(("zstd", "gzip"), key=lambda coding: qualities.get(coding, 0.0))
    return best if qualities.get(best, 0.0) > 0 else None
