"""Verdicts, with the store and in the local fallback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from kronos_api.ratelimit import limiter as module
from kronos_api.ratelimit.limiter import BOUND, Limiter, Verdict
from kronos_api.ratelimit.quotas import Quota, Quotas, parse_routes
from kronos_api.ratelimit.store import Reading, StoreUnavailable, WindowCounter
from kronos_api.telemetry.metrics import metrics
from tests.web import until

DAY = 86_400


class Memory:
    """A store in the process, which can be unavailable or stall."""

    kind: Literal["redis", "host"] = "redis"

    def __init__(self) -> None:
        self.unavailable = False
        self.stalls = False
        self.asked = 0
        self.counted = 0
        """Calls to count, without probes."""
        self.waiting = self.most_waiting = 0
        """Calls and probes that wait while the store stalls: now, and the most at one time."""
        self.reported: list[tuple[str, int]] = []
        self.totals: dict[tuple[str, Quota], int] = {}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None:
        self.asked += 1
        if self.stalls:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            try:
                await asyncio.sleep(60)
            finally:
                self.waiting -= 1
        if self.unavailable:
            raise StoreUnavailable("refused")

    async def count(
        self, caller: str, counters: Sequence[WindowCounter], cost: int
    ) -> tuple[bool, list[Reading]]:
        self.counted += 1
        await self.check()
        if not cost:
            self.reported.append((caller, counters[0].granted))
        now = time.time()
        places = [(caller, counter.quota) for counter in counters]
        allowed = all(self.totals.get(one, 0) + cost <= one[1].amount for one in places)
        readings = []
        for place in places:
            self.totals[place] = self.totals.get(place, 0) + cost * allowed
            window = place[1].window(now)
            readings.append(Reading(window, self.totals[place], place[1].end(window) - now))
        return allowed, readings


@asynccontextmanager
async def started(store: Memory, limits: str = "", **options: Any) -> AsyncIterator[Limiter]:
    # Windows of a day beside the minute's, so that no test meets the end of the one it is about.
    limiter = Limiter(Quotas(10**6, parse_routes(limits or "single=100/day")), store, **options)
    await limiter.start()
    try:
        yield limiter
    finally:
        await limiter.stop()


async def passed(limiter: Limiter, number: int, caller: str = "web") -> int:
    return sum([(await limiter.take(caller, "single")).allowed for _ in range(number)])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_PAUSE", 0.1)


async def test_verdict_is_of_the_tightest_quota() -> None:
    async with started(Memory(), "single=2/day;10/hour") as limiter:
        first = await limiter.take("web", "single")
        await limiter.take("web", "single")
        refused = await limiter.take("web", "single")
        other = await limiter.take("web", "batch")
    assert (first.allowed, first.limit, first.remaining, first.wait) == (True, 2, 1, 0)
    assert first.reset % DAY == 0
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.wait == pytest.approx(first.reset - time.time(), abs=2)
    assert (other.allowed, other.limit, other.remaining) == (True, 10**6, 10**6 - 3)


async def test_degraded_worker_grants_its_share() -> None:
    store = Memory()
    store.unavailable = True
    async with started(store, workers=4) as limiter:
        assert limiter.degraded
        assert [await passed(limiter, 60, caller) for caller in ("web", "api")] == [25, 25]
        asked = store.asked
        verdict: Verdict = await limiter.take("web", "single")
        assert store.asked == asked  # no call waits for an unavailable store
    assert (verdict.allowed, verdict.limit, verdict.remaining) == (False, 100, 0)


async def test_degraded_worker_returns_to_its_share_and_reports_later() -> None:
    store = Memory()
    store.unavailable = True
    async with started(store, workers=4) as limiter:
        granted = await limiter.take("web", "single", 25)
        assert not (await limiter.take("web", "single")).allowed
        assert (await limiter.give_back("web", "single", 25, granted)).remaining == 25
        assert await passed(limiter, 26) == 25
        counter = limiter._counters_of("web", limiter.quotas.of("single"))[1]
        assert (counter.granted, counter.returned) == (50, 25)


async def test_share_is_at_least_one() -> None:
    store = Memory()
    store.unavailable = True
    async with started(store, "single=3/day", workers=8) as limiter:
        assert await passed(limiter, 5) == 1


async def test_last_total_of_the_store_counts_while_degraded() -> None:
    store = Memory()
    async with started(store, workers=2) as limiter:
        assert await passed(limiter, 30) == 30
        assert (await limiter.take("else", "single")).allowed
        store.totals = {place: 95 for place in store.totals if place[0] == "else"}
        assert (await limiter.take("else", "single")).remaining == 4
        store.unavailable = True
        assert await passed(limiter, 60) == 35  # half of what was left
        assert await passed(limiter, 60, "else") == 2


async def test_one_call_waits_for_a_stalled_store() -> None:
    store = Memory()
    async with started(store) as limiter:
        store.stalls = True
        assert await passed(limiter, 50) == 50
        assert store.counted == 1
        assert limiter.degraded


async def test_concurrent_calls_wait_concurrently() -> None:
    store = Memory()
    async with started(store, workers=2) as limiter:
        store.stalls = True
        verdicts = await asyncio.gather(*(limiter.take("web", "single") for _ in range(80)))
        assert store.most_waiting == 80
        assert sum(verdict.allowed for verdict in verdicts) == 50


async def test_late_event_loop_does_not_degrade() -> None:
    async with started(Memory()) as limiter:
        taking = asyncio.create_task(limiter.take("web", "single"))
        await asyncio.sleep(0)
        time.sleep(BOUND + 0.1)
        assert (await taking).allowed
        assert not limiter.degraded


async def test_stopped_process_does_not_degrade() -> None:
    class Remote(Memory):
        answer: asyncio.Future[None] | None = None

        async def check(self) -> None:
            if self.answer is not None:
                await self.answer

    store = Remote()
    async with started(store) as limiter:
        loop = asyncio.get_running_loop()
        store.answer = loop.create_future()
        taking = asyncio.create_task(limiter.take("web", "single"))
        await asyncio.sleep(0)
        time.sleep(BOUND + 0.1)
        loop.call_later(0.01, store.answer.set_result, None)
        assert (await taking).allowed
        assert not limiter.degraded


async def test_start_waits_for_a_slow_store() -> None:
    class Slow(Memory):
        async def check(self) -> None:
            await asyncio.sleep(2 * BOUND)

    limiter = Limiter(Quotas(10**6), Slow())
    await limiter.start()
    assert not limiter.degraded
    await limiter.stop()


async def test_probe_bound_applies_per_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_BOUND", 0.5)

    class Far(Memory):
        async def check(self) -> None:
            await super().check()
            await asyncio.sleep(0.02)

    store = Far()
    store.unavailable = True
    async with started(store, workers=2) as limiter:
        for number in range(50):
            await limiter.take(f"web-{number}", "single")
        store.unavailable = False
        await until(lambda: not limiter.degraded)


async def test_local_grants_are_reported_to_the_store(capsys: pytest.CaptureFixture[str]) -> None:
    def degraded() -> float | None:
        return metrics.registry.get_sample_value("kronos_rate_limit_degraded")

    failures = "kronos_rate_limit_store_failures_total"
    before = metrics.registry.get_sample_value(failures) or 0
    store = Memory()
    async with started(store, workers=2) as limiter:
        await passed(limiter, 3)
        store.unavailable = True
        await passed(limiter, 3)
        assert (limiter.degraded, degraded()) == (True, 1)
        assert metrics.registry.get_sample_value(failures) == before + 1
        probed = store.asked
        await until(lambda: store.asked >= probed + 2)  # probes in vain
        store.unavailable = False
        await until(lambda: not limiter.degraded)
        assert degraded() == 0
    assert ("web", 6) in store.reported
    printed = capsys.readouterr().out
    assert "rate_limit_store_unavailable" in printed
    assert "refused" in printed
    assert "rate_limit_store_recovered" in printed


async def test_store_must_answer_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By then, workers that degraded at the same time have reported as well."""
    monkeypatch.setattr(time, "time", lambda: 10 * DAY + 5.0)  # no minute ends meanwhile
    store = Memory()
    store.unavailable = True
    async with started(store, workers=2) as limiter:
        await passed(limiter, 3)
        store.unavailable = False
        await until(lambda: store.reported == [("web", 3)] * 2)  # of two quotas
        assert limiter.degraded
        assert await passed(limiter, 1) == 1
        await until(lambda: not limiter.degraded)
    assert store.reported[2:] == [("web", 4)] * 2


async def test_flapping_store() -> None:
    store = Memory()
    async with started(store, workers=2) as limiter:
        for _ in range(3):
            store.unavailable = True
            await passed(limiter, 1)
            assert limiter.degraded
            store.unavailable = False
            await until(lambda: not limiter.degraded)
        assert await passed(limiter, 1) == 1


async def test_unhandled_exception_of_the_store_degrades(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(Memory):
        async def check(self) -> None:
            self.asked += 1
            raise ZeroDivisionError

    store = Broken()
    async with started(store, workers=2) as limiter:
        assert await passed(limiter, 60) == 50
        probed = store.asked
        await until(lambda: store.asked >= probed + 2)  # probes go on
        assert limiter.degraded
    assert capsys.readouterr().out.count("ZeroDivisionError") >= 2


async def test_windows_advance_while_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Memory()
    store.unavailable = True
    async with started(store, "single=4/day", workers=2) as limiter:
        for day in range(3):
            monkeypatch.setattr(time, "time", lambda day=day: day * DAY + 5.0)
            assert await passed(limiter, 9) == 2
        assert len(limiter._counters) == 2  # those of windows that ended are not kept


async def test_counters_in_flight_are_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep keeps counters that a call in flight will update."""
    monkeypatch.setattr(module, "SWEEP_PAUSE", 0)
    store = Memory()
    async with started(store, workers=2) as limiter:
        store.stalls = True
        verdicts = await asyncio.gather(*(limiter.take("web", "single") for _ in range(20)))
        assert sum(verdict.allowed for verdict in verdicts) == 20
        assert await passed(limiter, 60) == 30
        store.stalls = False
        await until(lambda: not limiter.degraded)
    assert ("web", 50) in store.reported


async def test_store_with_a_clock_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows are kept if it becomes unavailable just after one began."""
    store = Memory()
    async with started(store, "single=4/day", workers=2) as limiter:
        monkeypatch.setattr(time, "time", lambda: 10 * DAY + 1.0)
        assert await passed(limiter, 2) == 2
        monkeypatch.setattr(time, "time", lambda: 10 * DAY - 1.0)
        store.unavailable = True
        verdicts = [await limiter.take("web", "single") for _ in range(2)]
    assert [verdict.allowed for verdict in verdicts] == [True, False]
    assert {verdict.reset for verdict in verdicts} == {11 * DAY}
