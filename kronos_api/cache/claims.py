"""Claims of idempotency keys: which request computes the response, and its release without one."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Final

import structlog

from kronos_api.cache.store import CacheUnavailable, Store

PAUSE: Final = 1.0
"""Seconds between attempts to release claims at a store that was unavailable."""
_DIGEST: Final = hashlib.sha256().digest_size
_PENDING: Final = b"\0"
"""First byte of a claim's content while its request is in progress; no response begins with it."""

log = structlog.stdlib.get_logger("kronos_api.cache")


def _pending() -> bytes:
    return _PENDING + secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's claim to the Idempotency-Key it was sent with.

    key: of the store. digest: of path and body. pending: content of the store until the response;
    no other request, not even a repeated one, has the same.
    """

    key: str
    digest: bytes
    pending: bytes = field(default_factory=_pending)

    @classmethod
    def of(cls, caller: str, path: str, key: str, body: bytes) -> Claim:
        """That of one caller; path and body must be the same whenever the key is sent again."""
        name = hashlib.sha256(f"{caller}\n{key}".encode()).hexdigest()
        return cls(f"claim:{name}", hashlib.sha256(path.encode() + b"\n" + body).digest())

    @property
    def value(self) -> bytes:
        """The value in the store while the request is in progress."""
        return self.digest + self.pending

    def conflicts(self, value: bytes) -> bool:
        """Whether `value` of the store is of a request whose path or body differs."""
        return value[:_DIGEST] != self.digest

    def response(self, value: bytes) -> bytes | None:
        """The response in `value` of the store; None: its request is in progress."""
        content = value[_DIGEST:]
        return None if content.startswith(_PENDING) else content


class Releases:
    """Releases claims whose requests have no kept response, so that their keys can be sent again.

    A claim ends by itself after `seconds`. At an unavailable store, it is released as soon as the
    store answers; so is one whose storing failed, because the store can have it all the same.
    """

    def __init__(self, store: Store, seconds: float, pause: float = PAUSE) -> None:
        self.store = store
        self.seconds = seconds
        self.pause = pause
        self._ends: dict[Claim, float] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether no claim is left to release."""
        return not self._ends

    async def release(self, claim: Claim) -> None:
        """Drop `claim` from the store, in the background if the store is unavailable."""
        try:
            await self.store.delete(claim.key, claim.value)
        except CacheUnavailable as error:
            log.debug("cache_store_skipped", reason=str(error))
            self._ends[claim] = time.monotonic() + self.seconds
            if self._task is None or self._task.done():
                background = contextvars.Context()  # not that of the request
                self._task = asyncio.create_task(self._retry(), context=background)

    async def stop(self) -> None:
        """Leave the rest to the end of the claims."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _retry(self) -> None:
        while self._ends:
            await asyncio.sleep(self.pause)
            now = time.monotonic()
            self._ends = {claim: end for claim, end in self._ends.items() if end > now}
            for claim in list(self._ends):
                try:
                    await self.store.delete(claim.key, claim.value)
                except CacheUnavailable:
                    break
                self._ends.pop(claim, None)
