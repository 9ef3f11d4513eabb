"""Bytes of a file as text: compression, encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from typing import IO, Final

from kronos_api.errors import InvalidInput
from kronos_api.files.names import fields_of

LARGEST: Final = 256 * 2**20
"""Bytes that a file may have after decompression."""
CSV: Final = "CSV, or Parquet and Feather with pip install 'kronos-api[arrow]'"

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose BOM it begins with
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FORMATS: Final = ((b"PK\x03\x04", "zip"), (b"\xd0\xcf\x11\xe0", "xls"), (b"%PDF", "pdf"))
ENCODINGS: Final = ("gb18030", "cp1252", "cp932", "euc_kr", "big5", "cp1251")
"""Encodings tried for what is not UTF-8; that of the most known column names is taken."""
HEAD: Final = 4096
"""Characters that are searched for column names."""
NUL_SHARE: Final = 0.2
"""Above this share of NUL bytes, text without a BOM is UTF-16."""


def decompress(data: bytes, largest: int = LARGEST) -> bytes:
    """`data`, or what it packs as gzip, bzip2, xz or a zip archive of one file: `largest` bytes.

    Raises `InvalidInput`.
    """
    try:
        if data.startswith(b"\x1f\x8b"):
            return _bounded(gzip.GzipFile(fileobj=io.BytesIO(data)), largest)
        if data.startswith(b"BZh"):
            return _bounded(bz2.BZ2File(io.BytesIO(data)), largest)
        if data.startswith(b"\xfd7zXZ\x00"):
            return _bounded(lzma.LZMAFile(io.BytesIO(data)), largest)
        if data.startswith(b"PK\x03\x04"):
            return _unzipped(data, largest)
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise InvalidInput(f"cannot be decompressed: {error}") from None
    return data


def _unzipped(data: bytes, largest: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if "[Content_Types].xml" in names:
            raise InvalidInput("is an Excel workbook; save the sheet as CSV")
        if len(names) != 1:
            raise InvalidInput(f"is a zip archive of {len(names)} files; it must hold one")
        with archive.open(names[0]) as member:
            return _bounded(member, largest)


def _bounded(file: IO[bytes] | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile, largest: int) -> bytes:
    content = file.read(largest + 1)
    if len(content) > largest:
        raise InvalidInput(f"is larger than {largest / 2**20:g} MiB after decompression")
    return content


def decode(data: bytes) -> tuple[str, str]:
    """Text of `data`, and the name of its encoding.

    A byte order mark decides it; else many NUL bytes are UTF-16, valid UTF-8 is UTF-8, and of
    `ENCODINGS` the one counts in which most column names are known. Raises `InvalidInput` for
    binary data.
    """
    for bom, name in _BOMS:
        if data.startswith(bom):
            return _strictly(data.removeprefix(bom), name), name
    for magic, name in _FORMATS:
        if data.startswith(magic):
            raise InvalidInput(f"is a file of the format {name}; {CSV} can be read")
    if data.count(b"\x00") > NUL_SHARE * len(data):
        little = data[1::2].count(b"\x00") > data[::2].count(b"\x00")
        names: tuple[str, ...] = ("utf-16-le" if little else "utf-16-be",)
    elif _valid(data, "utf-8") is not None:
        names = ("utf-8",)
    else:
        names = ENCODINGS
    texts = [(text, name) for name in names if (text := _valid(data, name)) is not None]
    if not texts or "\x00" in texts[0][0]:
        raise InvalidInput(f"is not text; {CSV} can be read")
    return max(texts, key=lambda one: _known_names(one[0]))  # the first of those that are equal


def _valid(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except UnicodeDecodeError:
        return None


def _known_names(text: str) -> int:
    return len(fields_of(re.split(r"[,;|\t\r\n\"]", text[:HEAD])))


def _strictly(data: bytes, name: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError:
        raise InvalidInput(
            f"begins with the byte order mark of {name.upper()} and is not {name.upper()} text"
        ) from None
