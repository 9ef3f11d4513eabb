"""Kept responses over HTTP: hits of seeded requests, idempotency keys, failures of the store."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from kronos_api.cache import build
from kronos_api.cache.memory_store import MemoryStore
from kronos_api.cache.store import CacheUnavailable
from kronos_api.routes.caching import content_key
from kronos_api.schemas.parsing import Defaults, Limits, ParsedSeries, RequestParser
from kronos_api.telemetry.known_labels import CacheOutcome
from kronos_api.telemetry.metrics import metrics
from tests.fakes import SleepyEngine, stuck
from tests.web import BATCH, SINGLE, body, columns, encode, serving, until

SEEDED: dict[str, Any] = {"overrides": {"seed": 7}}
KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


def counts() -> dict[str, float]:
    """Requests by outcome."""
    return {
        outcome.value: metrics.registry.get_sample_value(
            "kronos_cache_requests_total", {"outcome": outcome.value}
        )
        or 0.0
        for outcome in CacheOutcome
    }


@pytest.fixture
def counted() -> dict[str, float]:
    """Requests by outcome before the test."""
    return counts()


def added(before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in counts().items() if value != before[name]}


async def test_seeded_request_gets_the_same_bytes_again(counted: dict[str, float]) -> None:
    engine = SleepyEngine()
    async with serving(engine, cache="memory") as client:
        first = await client.post(SINGLE, json=body(**SEEDED))
        again = await client.post(SINGLE, json=body(candles=columns(), **SEEDED))
        other = await client.post(SINGLE, json=body(series_id="b", **SEEDED))
        batch = {"items": [body(**SEEDED), body(overrides={"seed": 8})]}
        batches = [await client.post(BATCH, json=batch) for _ in range(2)]
    assert first.content == again.content != other.content
    assert batches[0].content == batches[1].content
    answers = [first, again, other, *batches]
    assert [one.headers["X-Cache"] for one in answers] == ["miss", "hit", "miss", "miss", "hit"]
    left = [int(one.headers["X-RateLimit-Remaining"]) for one in (first, again)]
    assert left[1] == left[0] - 1
    assert len(engine.runs) == 4
    assert added(counted) == {"hit": 2, "miss": 3}


async def test_unseeded_request_is_computed_each_time(counted: dict[str, float]) -> None:
    engine = SleepyEngine()
    async with serving(engine, cache="memory") as client:
        answers = [await client.post(SINGLE, json=body()) for _ in range(2)]
        mixed = await client.post(BATCH, json={"items": [body(**SEEDED), body()]})
    assert answers[0].content != answers[1].content
    assert not any("X-Cache" in one.headers for one in (*answers, mixed))
    assert len(engine.runs) == 4
    assert added(counted) == {"unseeded": 3}


async def test_nothing_is_kept_by_default(counted: dict[str, float]) -> None:
    engine = SleepyEngine()
    async with serving(engine) as client:
        answers = [await client.post(SINGLE, json=body(**SEEDED), headers=KEY) for _ in range(2)]
    assert not any("X-Cache" in one.headers for one in answers)
    assert len(engine.runs) == 2
    assert added(counted) == {}


async def test_key_repeats_the_first_response_of_an_unseeded_request() -> None:
    engine = SleepyEngine()
    async with serving(engine, cache="memory") as client:
        first, again = [await client.post(SINGLE, json=body(), headers=KEY) for _ in range(2)]
        conflict = await client.post(SINGLE, json=body(horizon=3), headers=KEY)
        fresh = await client.post(SINGLE, json=body(), headers={"Idempotency-Key": "other"})
    assert first.content == again.content != fresh.content
    assert [one.headers["X-Cache"] for one in (first, again, fresh)] == ["miss", "hit", "miss"]
    assert conflict.status_code == 422
    assert conflict.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert len(engine.runs) == 2


async def test_key_on_another_path_is_a_conflict() -> None:
    async with serving(cache="memory") as client:
        first = await client.post(SINGLE, json=body(), headers=KEY)
        elsewhere = await client.post(BATCH, json={"items": [body()]}, headers=KEY)
    assert first.status_code == 200
    assert elsewhere.status_code == 422
    assert elsewhere.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


async def test_callers_do_not_share_keys() -> None:
    engine = SleepyEngine()
    callers = ("10.0.0.7", "10.0.0.8")
    settings = {"container_whitelist": ",".join(callers), "trusted_proxies": "127.0.0.1"}
    async with serving(engine, cache="memory", **settings) as client:
        answers = [
            await client.post(SINGLE, json=body(), headers=KEY | {"X-Forwarded-For": caller})
            for caller in (*callers, *callers)
        ]
    contents = [one.content for one in answers]
    assert [one.headers["X-Cache"] for one in answers] == ["miss", "miss", "hit", "hit"]
    assert contents[:2] == contents[2:]
    assert contents[0] != contents[1]
    assert len(engine.runs) == 2


async def test_key_of_a_request_in_progress_is_refused_until_it_ends() -> None:
    engine = SleepyEngine()
    async with serving(engine, cache="memory") as client, stuck(engine) as release:
        first = asyncio.create_task(client.post(SINGLE, json=body(), headers=KEY))
        await until(lambda: bool(engine.runs))
        refused = await client.post(SINGLE, json=body(), headers=KEY)
        release.set()
        answer = await first
        again = await client.post(SINGLE, json=body(), headers=KEY)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "IDEMPOTENCY_IN_PROGRESS"
    assert refused.headers["Retry-After"] == "1"
    assert again.content == answer.content


async def test_key_of_a_failed_request_is_free_again() -> None:
    engine = SleepyEngine()

    def fail() -> None:
        engine.on_step = lambda: None
        raise RuntimeError

    engine.on_step = fail
    async with serving(engine, cache="memory") as client:
        answers = [await client.post(SINGLE, json=body(**SEEDED), headers=KEY) for _ in range(3)]
    assert [one.status_code for one in answers] == [500, 200, 200]
    assert answers[1].content == answers[2].content


@pytest.mark.parametrize("key", ["", "two words", "x" * 129, "é"])
async def test_key_of_other_characters_is_refused(key: str) -> None:
    async with serving(cache="memory") as client:
        headers = [(b"Idempotency-Key", key.encode("latin-1"))]
        refused = await client.post(SINGLE, json=body(), headers=headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["field"] == "Idempotency-Key"


class Away(MemoryStore):
    """A store that cannot be reached."""

    async def get(self, key: str) -> bytes | None:
        raise CacheUnavailable(key)

    async def put(self, key: str, value: bytes, seconds: float) -> bool:
        raise CacheUnavailable(f"{key}: {len(value)} bytes, {seconds} s")


async def test_forecasts_go_on_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch, counted: dict[str, float]
) -> None:
    monkeypatch.setattr(build, "MemoryStore", Away)
    engine = SleepyEngine()
    async with serving(engine, cache="memory") as client:
        seeded = await client.post(SINGLE, json=body(**SEEDED))
        keyed = await client.post(SINGLE, json=body(), headers=KEY)
    assert [one.status_code for one in (seeded, keyed)] == [200, 200]
    assert len(engine.runs) == 2
    assert added(counted) == {"unavailable": 2}


def parsed(**changes: Any) -> ParsedSeries:
    parser = RequestParser(Defaults(120, 1.0, 0, 0.9, 1), Limits(64, 64, 32_768))
    return parser.single(encode(body(**(SEEDED | changes))))[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"series_id": "b"},
        {"horizon": 3},
        {"freq": "1h"},
        {"calendar": "CRYPTO"},
        {"bar_label": "open"},
        {"quantile_levels": [0.1], "overrides": {"seed": 7, "sample_count": 2}},
        {"summary": True},
        {"return_samples": True},
        {"repair": False},
        {"timestamps": [f"2025-03-03T09:{minute}:00" for minute in ("00", "15", "30", "45")]},
        *(
            {"overrides": {"seed": 7, name: value}}
            for name, value in (("top_p", 0.8), ("top_k", 3))
        ),
        {"overrides": {"seed": 8}},
    ],
)
def test_content_key_depends_on_each_part_of_a_request(changes: dict[str, Any]) -> None:
    assert content_key(parsed()) == content_key(parsed(candles=columns()))
    assert content_key(parsed()) != content_key(parsed(**changes))


def test_content_key_depends_on_each_candle() -> None:
    series = parsed()
    keys = {content_key(series)}
    for place in np.ndindex(series.candles.shape):
        candles = series.candles.copy()
        candles[place] = np.nextafter(candles[place], np.float32(1e9))
        keys.add(content_key(replace(series, candles=candles)))
    assert len(keys) == 1 + series.candles.size
    assert {"candles", "params", "summary"} <= {field.name for field in fields(series)}
