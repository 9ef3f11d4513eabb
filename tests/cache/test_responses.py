"""The claim of an Idempotency-Key whose response the store does not keep."""

from __future__ import annotations

import asyncio

import pytest

from kronos_api.cache.claims import Claim, Releases
from kronos_api.cache.memory_store import MemoryStore
from kronos_api.cache.responses import ResponseCache
from kronos_api.cache.store import CacheUnavailable
from kronos_api.errors import IdempotencyConflict, IdempotencyInProgress
from tests.web import until

RESPONSE = b"{}"


class FailingStore(MemoryStore):
    """Fails in the methods named in `fails`; `add` keeps its value all the same."""

    def __init__(self, *fails: str) -> None:
        super().__init__(2**20)
        self.fails = set(fails)

    async def add(self, key: str, value: bytes, seconds: float) -> bytes | None:
        found = await super().add(key, value, seconds)
        self._fail("add")
        return found

    async def put(self, key: str, value: bytes, seconds: float) -> bool:
        self._fail("put", value)
        return await super().put(key, value, seconds)

    async def delete(self, key: str, value: bytes) -> None:
        self._fail("delete")
        await super().delete(key, value)

    def _fail(self, name: str, value: bytes = b"") -> None:
        if name in self.fails and b"\0" not in value:
            raise CacheUnavailable("no answer within 250 ms")


def cache_of(store: MemoryStore, pending: float = 60) -> ResponseCache:
    cache = ResponseCache(store, seconds=60, pending=pending)
    cache.releases = Releases(store, pending, pause=0.01)
    return cache


def claim(caller: str = "shop") -> Claim:
    return Claim.of(caller, "/v1/predict/single", "key", b"body")


async def compute() -> bytes:
    return RESPONSE


async def test_response_that_is_too_large_releases_its_key() -> None:
    store = MemoryStore(600)

    async def large() -> bytes:
        return b"{" + b" " * 600 + b"}"

    cache = cache_of(store)
    assert await cache.respond(None, claim(), large) == (await large(), False)
    assert store.used == 0
    assert await cache.respond(None, claim(), compute) == (RESPONSE, False)


@pytest.mark.parametrize("failing", [("put",), ("put", "delete"), ("add", "delete")])
async def test_store_that_fails_and_recovers_releases_the_key(failing: tuple[str, ...]) -> None:
    store = FailingStore(*failing)
    cache = cache_of(store)
    assert await cache.respond(None, claim(), compute) == (RESPONSE, False)
    store.fails = set()
    await until(lambda: store.used == 0)
    assert await cache.respond(None, claim(), compute) == (RESPONSE, False)
    assert await cache.respond(None, claim(), compute) == (RESPONSE, True)
    await cache.stop()


async def test_release_leaves_the_claim_of_another_request() -> None:
    store = FailingStore("delete")
    releases = Releases(store, 60, pause=0.01)
    first, second = claim(), claim()
    await releases.release(first)
    await store.add(second.key, second.value, 60)
    store.fails = set()
    await until(lambda: releases.idle)
    with pytest.raises(IdempotencyInProgress):
        await cache_of(store).respond(None, claim(), compute)


async def test_claim_that_has_ended_is_not_released_any_more() -> None:
    store = FailingStore("delete")
    releases = Releases(store, 0, pause=0.01)
    await releases.release(claim())
    await until(lambda: releases.idle)
    await releases.stop()


async def test_same_body_on_another_path_is_a_conflict() -> None:
    cache = cache_of(MemoryStore(2**20))
    await cache.respond(None, claim(), compute)
    other = Claim.of("shop", "/v1/predict/batch", "key", b"body")
    with pytest.raises(IdempotencyConflict):
        await cache.respond(None, other, compute)


async def test_cancelled_request_releases_its_key() -> None:
    store = MemoryStore(2**20)
    cache = cache_of(store)
    began = asyncio.Event()

    async def endless() -> bytes:
        began.set()
        await asyncio.Event().wait()
        return RESPONSE

    task = asyncio.create_task(cache.respond(None, claim(), endless))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.used == 0
