"""Responses that are stored: by the content of a seeded request, and by an Idempotency-Key.

A failing store never fails a request: the forecast is computed as if nothing was stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from kronos_api.cache.claims import Claim, Releases
from kronos_api.cache.store import CacheUnavailable, Store
from kronos_api.errors import IdempotencyConflict, IdempotencyInProgress
from kronos_api.telemetry.known_labels import CacheOutcome
from kronos_api.telemetry.metrics import metrics

RETRY_AFTER: Final = 1.0
"""Seconds until a request whose first copy is in progress is worth another try."""

Compute = Callable[[], Awaitable[bytes]]
log = structlog.stdlib.get_logger("kronos_api.cache")


class ResponseCache:
    """Responses in `store` for `seconds`; a claim lasts `pending` seconds until its response."""

    def __init__(self, store: Store, *, seconds: float, pending: float) -> None:
        self.store = store
        self.seconds = seconds
        self.pending = pending
        self.releases = Releases(store, pending)

    async def stop(self) -> None:
        """After the last request."""
        await self.releases.stop()
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
        released = False
        try:
            found = await self.store.add(claim.key, claim.value, self.pending)
            if found is not None:
                released = True
                return self._replayed(claim, found), True
            content, stored = await self._by_content(key, compute)
            released = await self._keep(claim.key, claim.digest + content)
            return content, stored
        except CacheUnavailable:  # of `add`
            _count(CacheOutcome.UNAVAILABLE)
            return await compute(), False
        finally:
            if not released:
                await self.releases.release(claim)

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
        await self._keep(key, content)
        return content, False

    def _replayed(self, claim: Claim, found: bytes) -> bytes:
        """The response in `found`, of an earlier request with the key of `claim`."""
        if claim.conflicts(found):
            _count(CacheOutcome.CONFLICT)
            raise IdempotencyConflict(
                "Idempotency-Key belongs to another request, whose path or body differs. Send a new"
                " key with each new request; a key is kept for KRONOS_CACHE_TTL"
                f" ({self.seconds:g} s)."
            )
        response = claim.response(found)
        if response is None:
            _count(CacheOutcome.IN_PROGRESS)
            raise IdempotencyInProgress(
                "The first request with this Idempotency-Key is still in progress. Retry in"
                f" {RETRY_AFTER:g} s for its response.",
                retry_after=RETRY_AFTER,
            )
        _count(CacheOutcome.REPLAYED)
        return response

    async def _keep(self, key: str, value: bytes) -> bool:
        """Whether the store has kept `value`; if it is unavailable, the next request misses."""
        try:
            return await self.store.put(key, value, self.seconds)
        except CacheUnavailable as error:
            log.debug("cache_store_skipped", reason=str(error))
            return False


def _count(outcome: CacheOutcome) -> None:
    structlog.contextvars.bind_contextvars(cache=outcome.value)
    metrics.cache_requests.labels(outcome.value).inc()
