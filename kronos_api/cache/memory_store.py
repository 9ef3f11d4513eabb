"""Responses in the memory of one worker; the one that was not read for longest goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

from kronos_api.telemetry.metrics import metrics

OVERHEAD: Final = 400
"""Bytes that an entry takes beside its value."""


class MemoryStore:
    """At most `size` bytes of values and their overhead; `now` in seconds."""

    kind: Literal["memory", "redis"] = "memory"

    def __init__(self, size: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self._now = now
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.used = 0

    async def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, end = entry
        if self._now() >= end:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes, seconds: float) -> bool:
        if len(value) + OVERHEAD > self.size:
            return False
        self._drop(key)
        self._entries[key] = value, self._now() + seconds
        self.used += len(value) + OVERHEAD
        while self.used > self.size:
            self._drop(next(iter(self._entries)))
        metrics.cache_bytes.set(self.used)
        return True

    async def add(self, key: str, value: bytes, seconds: float) -> bytes | None:
        existing = await self.get(key)
        if existing is None:
            await self.put(key, value, seconds)
        return existing

    async def delete(self, key: str, value: bytes) -> None:
        if await self.get(key) == value:
            self._drop(key)

    async def close(self) -> None:
        self._entries.clear()
        self.used = 0
        metrics.cache_bytes.set(0)

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used -= len(entry[0]) + OVERHEAD
            metrics.cache_bytes.set(self.used)
