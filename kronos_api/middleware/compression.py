"""Compresses responses for clients that accept it."""

from __future__ import annotations

import asyncio
from typing import Final

import zstandard
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Receive, Scope, Send

SMALLEST: Final = 2048
"""Smallest response that is compressed, in bytes: smaller ones fit in two packets anyway."""
LARGE: Final = 2**15
"""Smallest response that is compressed in a thread, in bytes: it takes about a millisecond."""
LEVEL: Final = 1
"""Level of both: a response is mostly digits, on which a higher level takes four times as long for
5 % fewer bytes."""


class Compression:
    """Compress responses of `SMALLEST` bytes or more by the `Accept-Encoding` of the request.

    The coding with the higher q-value is used; zstd, which costs less, if both have the same.
    Streams of events are not compressed.
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
    """The counterpart of Starlette's `GZipResponder`."""

    content_encoding = "zstd"

    def __init__(self, app: ASGIApp, minimum_size: int) -> None:
        super().__init__(app, minimum_size)
        self._frame: zstandard.ZstdCompressionObj | None = None

    async def apply_compression(self, body: bytes, *, more_body: bool) -> bytes:
        """The next bytes of the frame, from which the client can decode all of `body`."""
        if len(body) < LARGE:
            return self._compress(body, more_body)
        return await asyncio.to_thread(self._compress, body, more_body)

    def _compress(self, body: bytes, more_body: bool) -> bytes:
        if self._frame is None:
            if not more_body:  # some clients need the size of the content in the frame
                return zstandard.ZstdCompressor(LEVEL).compress(body)
            self._frame = zstandard.ZstdCompressor(LEVEL).compressobj()
        mode = (
            zstandard.COMPRESSOBJ_FLUSH_BLOCK if more_body else zstandard.COMPRESSOBJ_FLUSH_FINISH
        )
        return self._frame.compress(body) + self._frame.flush(mode)


def preferred(accepted: str) -> str | None:
    """The preferred of zstd and gzip in the value of an `Accept-Encoding` header; None: neither."""
    qualities: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        coding, _, parameter = entry.partition(";")
        name, _, quality = parameter.partition("=")
        try:
            qualities[coding.strip()] = float(quality) if name.strip() == "q" else 1.0
        except ValueError:
            qualities[coding.strip()] = 0.0
    # "*" stands for all codings that are not named; every client that sends it decodes gzip.
    qualities.setdefault("gzip", qualities.get("*", 0.0))
    best = max(("zstd", "gzip"), key=lambda coding: qualities.get(coding, 0.0))
    return best if qualities.get(best, 0.0) > 0 else None
