"""Responses that are stored: by the content of a seeded request, and by an Idempotency-Key.

A failing store never fails a request: the forecast is computed as if nothing was stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from kronos_api.cache.store import CacheUnavailable, Store
from kronos_api.errors import IdempotencyConflict, IdempotencyInProgress
from kronos_api.telemetry.known_labels import CacheOutcome
from kronos_api.telemetry.metrics import metrics

RETRY_AFTER: Final = 1.0
"""Seconds until a request whose first copy is in progress is worth another try."""
_DIGEST: Final = hashlib.sha256().digest_size
_PENDING: Final = b""
"""Content of a claim whose request is in progress; no response is empty."""

Compute = Callable[[], Awaitable[bytes]]
log = structlog.stdlib.get_logger("kronos_api.cache")


@dataclass(frozen=True, slots=True)
class Claim:
    """The Idempotency-Key of a request: its key in the store, and the digest of its body."""

    key: str
    digest: bytes

    @classmethod
    def of(cls, caller: str, path: str, key: str, body: bytes) -> Claim:
        """That of one caller; path and body must be the same whenever the key is sent again."""
        name = hashlib.sha256(f"{caller}\n{key}".encode()).hexdigest()
        return cls(f"key:{name}", hashlib.sha256(path.encode() + b"\n" + body).digest())


class ResponseCache:
    """Responses in `store` for `seconds`; a claim lasts `pending` seconds until its response."""

    def __init__(self, store: Store, *, seconds: float, pending: float) -> None:
        self.store = store
        self.seconds = seconds
        self.pending = pending

    async def stop(self) -> None:
        """After the last request."""
        await self.store.close()

    async def respond(
        self, key: str | None, claim: Claim | None, compute: Compute
    ) -> tuple[bytes, bool]:
        """The stored response, else that of `compute`, which is stored; and whether it was stored.

        key: of a seeded request; None: the response depends on a random seed. Nothing is stored if
        `compute` raises.

        Raises:
            IdempotencyConflict: the key of the claim belongs to another request.
            IdempotencyInProgress: the first request of the claim has no response yet.
        """
        if claim is None:
            return await self._by_content(key, compute)
        stored, held = await self._claimed(claim)
        if stored is not None:
            _count(CacheOutcome.REPLAYED)
            return stored, True
        try:
            content, found = await self._by_content(key, compute)
        except BaseException:
            if held:
                await self._quietly(self.store.delete(claim.key))
            raise
        if held:
            value = claim.digest + content
            await self._quietly(self.store.put(claim.key, value, self.seconds))
        return content, found

    async def _by_content(self, key: str | None, compute: Compute) -> tuple[bytes, bool]:
        if key is None:
            _count(CacheOutcome.UNSEEDED)
            return await compute(), False
        try:
            stored = await self.store.get(key)
        except CacheUnavailable:
            _count(CacheOutcome.UNAVAILABLE)
            return await compute(), False
        _count(CacheOutcome.MISS if stored is None else CacheOutcome.HIT)
        if stored is not None:
            return stored, True
        content = await compute()
        await self._quietly(self.store.put(key, content, self.seconds))
        return content, False

    async def _claimed(self, claim: Claim) -> tuple[bytes | None, bool]:
        """The response of an earlier request of the claim, and whether the claim is held now."""
        try:
            found = await self.store.add(claim.key, claim.digest + _PENDING, self.pending)
        except CacheUnavailable:
            _count(CacheOutcome.UNAVAILABLE)
            return None, False
        if found is None:
            return None, True
        digest, content = found[:_DIGEST], found[_DIGEST:]
        if digest != claim.digest:
            _count(CacheOutcome.CONFLICT)
            raise IdempotencyConflict(
                "Idempotency-Key belongs to another request, whose path or body differs. Send a new"
                " key with each new request; a key is kept for KRONOS_CACHE_TTL"
                f" ({self.seconds:g} s)."
            )
        if content == _PENDING:
            _count(CacheOutcome.IN_PROGRESS)
            raise IdempotencyInProgress(
                "The first request with this Idempotency-Key is still in progress. Retry in"
                f" {RETRY_AFTER:g} s for its response.",
                retry_after=RETRY_AFTER,
            )
        return content, False

    async def _quietly(self, call: Awaitable[None]) -> None:
        """Await `call`; if the store is unavailable, the next request misses."""
        try:
            await call
        except CacheUnavailable as error:
            log.debug("cache_store_skipped", reason=str(error))


def _count(outcome: CacheOutcome) -> None:
    structlog.contextvars.bind_contextvars(cache=outcome.value)
    metrics.cache_requests.labels(outcome.value).inc()
