"""Responses in memory: bounded by bytes and time, the least recently read goes first."""

from __future__ import annotations

from kronos_api.cache.memory_store import OVERHEAD, MemoryStore
from kronos_api.telemetry.metrics import metrics

VALUE = b"x" * 100


async def test_least_recently_read_value_makes_room() -> None:
    store = MemoryStore(3 * (OVERHEAD + len(VALUE)))
    for key in "abc":
        await store.put(key, VALUE, 60)
    assert await store.get("a") == VALUE
    await store.put("d", VALUE, 60)
    assert [await store.get(key) for key in "abcd"] == [VALUE, None, VALUE, VALUE]
    assert store.used == store.size


async def test_value_larger_than_the_bound_is_not_kept() -> None:
    store = MemoryStore(OVERHEAD + 10)
    assert await store.put("a", b"small", 60)
    assert not await store.put("a", VALUE, 60)
    assert await store.get("a") == b"small"
    assert store.used == OVERHEAD + 5


async def test_value_is_dropped_after_its_time() -> None:
    now = 0.0
    store = MemoryStore(10_000, now=lambda: now)
    assert await store.add("a", VALUE, 10) is None
    now = 9.9
    assert await store.add("a", b"other", 10) == VALUE
    now = 10.0
    assert await store.get("a") is None
    assert store.used == 0
    assert await store.add("a", b"other", 10) is None
    await store.delete("a", VALUE)
    assert await store.get("a") == b"other"
    await store.delete("a", b"other")
    assert await store.get("a") is None


async def test_memory_is_0_once_the_store_is_closed() -> None:
    store = MemoryStore(10_000)
    await store.put("a", VALUE, 60)
    assert metrics.registry.get_sample_value("kronos_cache_bytes") == OVERHEAD + len(VALUE)
    await store.close()
    assert metrics.registry.get_sample_value("kronos_cache_bytes") == store.used == 0
