"""Decoders of compressed bodies: in pieces of bounded size, so that none inflates whole."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import zstandard
from starlette.datastructures import Headers

from kronos_api.errors import MalformedBody

PIECE: Final = 2**17
"""Bytes that are decoded in one go; these many take less than a millisecond."""
SLICE: Final = 2**14
"""Bytes that zlib is given in one go: it copies what it leaves of them."""
MOST_MEMBERS: Final = 1024
"""Members of one gzip body: bgzip writes one for each 64 KiB, and an empty one has 20 bytes."""
WINDOW: Final = 2**23
"""Bytes of the largest window that a zstd encoder may ask for over HTTP, by RFC 9659."""

_GZIP: Final = 16 + zlib.MAX_WBITS

Decoder = Callable[[bytes, int], Iterator[bytes]]


def content_encoding(headers: Headers) -> str:
    """How the body is encoded, in lower case and without `identity`; empty if it is not."""
    named = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return ", ".join(one for name in named if (one := name.strip()) not in ("", "identity"))


def gunzip(body: bytes, limit: int) -> Iterator[bytes]:
    """The content of the gzip members in `body`, in pieces of up to `PIECE` bytes.

    Raises `MalformedBody`. `limit` is ignored: a gzip window has 32 KiB.
    """
    del limit
    member, members = zlib.decompressobj(_GZIP), 1
    try:
        for start in range(0, len(body), SLICE):
            rest = body[start : start + SLICE]
            while rest:
                if member.eof:
                    member, members = zlib.decompressobj(_GZIP), members + 1
                    if members > MOST_MEMBERS:
                        raise MalformedBody(f"The body has more than {MOST_MEMBERS} gzip members.")
                yield member.decompress(rest, PIECE)
                rest = member.unused_data if member.eof else member.unconsumed_tail
        while piece := b"" if member.eof else member.decompress(b"", PIECE):
            yield piece
    except zlib.error:
        raise MalformedBody("Content-Encoding is gzip, but the body is not valid gzip.") from None
    if not member.eof:
        raise MalformedBody("The gzip body is cut: its last member has no end.")


def unzstd(body: bytes, limit: int) -> Iterator[bytes]:
    """The content of the zstd frames in `body`, in pieces of up to `PIECE` bytes.

    Raises `MalformedBody`. A frame that was compressed in one go has a window of its content's
    size: windows of up to `limit` bytes are taken. The library does not say whether the last
    frame was cut; the reader of the JSON does.
    """
    window = max(WINDOW, limit)
    decompressor = zstandard.ZstdDecompressor(max_window_size=window)
    reader = decompressor.stream_reader(io.BytesIO(body), read_across_frames=True)
    try:
        while piece := reader.read(PIECE):
            yield piece
    except zstandard.ZstdError as error:
        message = f"Content-Encoding is zstd, but the body cannot be decoded: {error}."
        if "memory" in str(error):
            message = f"The zstd body needs a window of more than {window} bytes."
        raise MalformedBody(message) from None


DECODERS: Final[Mapping[str, Decoder]] = {"gzip": gunzip, "zstd": unzstd}
