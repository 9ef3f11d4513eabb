"""Decoders of compressed bodies, in pieces of bounded size."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import zstandard
from starlette.datastructures import Headers

from kronos_api.errors import MalformedBody

PIECE: Final = 2**17
"""Largest piece of content, in bytes: it is decoded in less than a millisecond."""
SLICE: Final = 2**14
"""Bytes that zlib gets at once: it copies the part that it does not consume."""
MOST_MEMBERS: Final = 1024
"""Members of one gzip body: bgzip writes one for each 64 KiB, and an empty one has 20 bytes."""
WINDOW: Final = 2**23
"""Largest window of a zstd encoder over HTTP, in bytes, by RFC 9659."""

_GZIP: Final = 16 + zlib.MAX_WBITS

Decoder = Callable[[bytes, int], Iterator[bytes]]


def content_encoding(headers: Headers) -> str:
    """The encoding of the body, in lower case and without `identity`; empty if there is none."""
    named = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return ", ".join(one for name in named if (one := name.strip()) not in ("", "identity"))


def gunzip(body: bytes, limit: int) -> Iterator[bytes]:
    """The content of the gzip members in `body`, in pieces of up to `PIECE` bytes.

    `limit` is ignored, because a gzip window has 32 KiB.

    Raises:
        MalformedBody: `body` is not gzip, is cut, or has more than `MOST_MEMBERS` members.
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
                        raise MalformedBody(
                            f"The body has more than {MOST_MEMBERS} gzip members; send one."
                        )
                yield member.decompress(rest, PIECE)
                rest = member.unused_data if member.eof else member.unconsumed_tail
        while piece := b"" if member.eof else member.decompress(b"", PIECE):
            yield piece
    except zlib.error:
        raise MalformedBody("Content-Encoding is gzip, but the body is not valid gzip.") from None
    if not member.eof:
        raise MalformedBody("The gzip body is truncated: its last member has no end.")


def unzstd(body: bytes, limit: int) -> Iterator[bytes]:
    """The content of the zstd frames in `body`, in pieces of up to `PIECE` bytes.

    A frame that was compressed at once has a window of its content's size, so windows of up to
    `limit` bytes are accepted. The library does not report a truncated last frame; the JSON parser
    does.

    Raises:
        MalformedBody: `body` is not zstd, or needs a larger window.
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
            message = (
                f"The zstd body needs a window of more than {window} bytes; compress it with a "
                "smaller window (zstd: without --long)."
            )
        raise MalformedBody(message) from None


DECODERS: Final[Mapping[str, Decoder]] = {"gzip": gunzip, "zstd": unzstd}
