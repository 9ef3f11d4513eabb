"""Keys of stored responses: what a seeded response depends on, and the header of a caller."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final

import numpy as np
from fastapi import Request, Response

from kronos_api.cache.claims import Claim
from kronos_api.cache.responses import Compute, ResponseCache
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.off_loop import off_loop
from kronos_api.schemas.parsing import ParsedSeries
from kronos_api.timeseries import Timestamps
from kronos_api.violations import invalid_field

HEADER: Final = "Idempotency-Key"
STATUS: Final = "X-Cache"
LARGE: Final = 2**20
"""Requests of more bytes have their key computed in a thread: this many take some 2 ms."""
_KEY: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class CachedForecasts:
    """Forecasts of one build and its settings, in `cache`.

    service: build and settings that forecasts depend on, beside the checkpoints.
    caller: the caller of a request, to which its Idempotency-Key belongs.
    """

    cache: ResponseCache
    service: tuple[object, ...]
    caller: Callable[[Request], str]

    async def respond(
        self,
        request: Request,
        series: Sequence[ParsedSeries],
        info: ModelInfo | None,
        compute: Compute,
    ) -> Response:
        """The stored response of `request`, else that of `compute`; raises `KronosError`."""
        body, path = await request.body(), request.url.path
        claim = self._claim(request, path, body)
        key = None
        if info is not None and all(one.seeded for one in series):
            large = len(body) > LARGE
            key = await off_loop(large, content_key, path, self.service, info, series)
        content, found = await self.cache.respond(key, claim, compute)
        headers = {STATUS: "hit" if found else "miss"} if key or claim else {}
        return Response(content, media_type="application/json", headers=headers)

    def _claim(self, request: Request, path: str, body: bytes) -> Claim | None:
        keys = request.headers.getlist(HEADER)
        if not keys:
            return None
        if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
            raise invalid_field(
                HEADER, "one of 1 to 128 visible ASCII characters, such as a random UUID"
            )
        return Claim.of(self.caller(request), path, keys[0], body)


def content_key(*parts: object) -> str:
    """The digest of dataclasses, arrays, sequences and plain values, by their content."""
    digest = hashlib.sha256()
    _feed(digest.update, parts)
    return f"content:{digest.hexdigest()}"


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Every kind of value begins with its name and size, so that no two values look the same."""
    match value:
        case np.ndarray():
            update(f"array {value.dtype} {value.shape}\n".encode())
            update(np.ascontiguousarray(value).tobytes())
        case Timestamps():  # its texts hold all of it
            text = "\n".join(value.texts)
            update(f"timestamps {len(text)}\n{text}".encode())
        case tuple() | list():
            update(f"sequence {len(value)}\n".encode())
            for one in value:
                _feed(update, one)
        case str():
            update(f"text {len(value)}\n{value}".encode())
        case None | bool() | int() | float() | timedelta() | Enum():
            update(f"{type(value).__name__} {value!r}\n".encode())
        case _ if is_dataclass(value):
            update(f"{type(value).__name__} {len(fields(value))}\n".encode())
            for field in fields(value):
                _feed(update, getattr(value, field.name))
        case _:
            raise TypeError(f"no key of {type(value).__name__}")
