"""Two services of two workers with one Redis, which is killed, stopped and flaps.

Callers have loopback addresses of their own. Calls whose body is not JSON are granted or refused
like others, but decode nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import httpx
import psutil
import pytest

from tests.processes import OPENER, Redis, Service, needs_redis, redis_server, services
from tests.web import JSON, SINGLE, body, encode

pytestmark = [pytest.mark.process, needs_redis]

log = logging.getLogger(__name__)

LIMIT = 100
CALLS = 130
WORKERS = 4
FLAPPING = LIMIT + (WORKERS - 1) * LIMIT // WORKERS
"""Most that can pass in a window in which Redis becomes unavailable: one worker granted the whole
limit, and the others, without an answer of Redis, grant their share."""
TRIES = 6
"""Attempts at a condition that holds only while no worker degrades for want of CPU time."""


@dataclass(frozen=True)
class Stage:
    redis: Redis
    services: list[Service]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("faults")
    # By the year: there is no minute that could end meanwhile.
    options = {"RATE_LIMITS": f"single={LIMIT}/year", "RATE_LIMIT_PER_MINUTE": "1000000"}
    options |= {"REPLICAS": "2", "CONTAINER_WHITELIST": "127.0.0.0/8"}
    with (
        redis_server(folder) as redis,
        services(folder, 2, 2, REDIS_URL=redis.url, **options) as running,
    ):
        yield Stage(redis, running)


@dataclass
class Outcome:
    """Statuses by caller, and the seconds of each call."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def passed(self) -> list[int]:
        """Calls that were not refused, by caller."""
        return [found.total() - found[429] for found in self.statuses.values()]


async def ask(
    stage: Stage, callers: list[str], calls: int = CALLS, content: bytes = b"{", pause: float = 0
) -> Outcome:
    """`calls` of each caller at the same time, four in flight, to both services in turn."""
    outcome = Outcome()

    async def one(caller: str, client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            url = stage.services[number % 2].url + SINGLE
            began = time.perf_counter()
            response = await client.post(url, content=content, headers=JSON)
            outcome.seconds.append(time.perf_counter() - began)
            outcome.statuses[caller][response.status_code] += 1
            await asyncio.sleep(pause)

    async with AsyncExitStack() as stack:
        tasks = []
        for caller in callers:
            outcome.statuses[caller] = Counter()
            transport = httpx.AsyncHTTPTransport(
                local_address=caller,
                # Every call has a connection of its own, and so whichever worker is free.
                limits=httpx.Limits(max_keepalive_connections=0),
            )
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, timeout=30)
            )
            numbers = iter(range(calls))
            tasks += [one(caller, client, numbers) for _ in range(4)]
        await asyncio.gather(*tasks)
    return outcome


def callers(group: int, number: int = 10) -> list[str]:
    return [f"127.0.{group}.{n + 1}" for n in range(number)]


def stores(stage: Stage) -> Counter[str]:
    """What workers say of their store, whichever of them are asked."""
    return Counter(
        service.get("/v1/healthz/detailed")["checks"]["rate_limit_store"]["status"]
        for service in stage.services
        for _ in range(8)
    )


async def recovery(stage: Stage) -> float:
    """Seconds until no worker is degraded."""
    began = time.monotonic()
    while await asyncio.to_thread(degraded_workers, stage):
        assert time.monotonic() - began < 60, "no recovery"
    return time.monotonic() - began


async def test_exactly_the_limit_passes(stage: Stage) -> None:
    pids = [pid for service in stage.services for pid in service.workers()]
    assert len(pids) == WORKERS
    idle = [psutil.Process(pid).cpu_times().user for pid in pids]
    for group in range(10, 10 + TRIES):
        await recovery(stage)  # a worker may take the store for out when it starts, too
        before, began = waited(stage), time.monotonic()
        outcome = await ask(stage, callers(group), content=encode(body(4, horizon=1)))
        log.info("%d calls in %.1f s", 10 * CALLS, time.monotonic() - began)
        if waited(stage) == before:
            break
    assert all(found == {200: LIMIT, 429: CALLS - LIMIT} for found in outcome.statuses.values()), (
        outcome.statuses
    )
    busy = [psutil.Process(pid).cpu_times().user for pid in pids]
    assert all(now - then > 0.1 for now, then in zip(busy, idle, strict=True))
    assert set(stores(stage)) == {"ok"}


async def test_redis_is_killed_and_forgets(stage: Stage) -> None:
    for group in range(20, 20 + 3 * TRIES, 3):
        await recovery(stage)
        usual = await ask(stage, callers(group), 20)
        known = await ask(stage, callers(group + 1, 2), 60)
        before = waited(stage)
        stage.redis.kill()
        fallen = await ask(stage, callers(group + 2))
        log_cost(usual, fallen, "killed")
        assert waited(stage) - before <= len(fallen.seconds) / 4
        assert all(25 <= passed <= LIMIT for passed in fallen.passed())
        assert set(stores(stage)) == {"degraded"}
        assert stage.services[0].get("/v1/readyz")["rate_limit_store"] == "degraded"
        assert degraded_workers(stage) == WORKERS
        out = "rate_limit_store_unavailable"
        assert len(stage.services[0].lines(out)) > 1

        stage.redis.start()
        log.info("recovered after %.1f s", await recovery(stage))
        before = waited(stage)
        again = await ask(stage, callers(group + 1, 2) + callers(group + 2))
        if waited(stage) == before:
            break
    # Grants from before and from the outage were reported to the empty Redis.
    first = known.passed() + fallen.passed()
    assert [one + other for one, other in zip(first, again.passed(), strict=True)] == [LIMIT] * 12


async def test_redis_is_stopped(stage: Stage) -> None:
    for group in range(40, 40 + 2 * TRIES, 2):
        await recovery(stage)
        usual = await ask(stage, callers(group), 20)
        before = waited(stage)
        stage.redis.pause()
        try:
            fallen = await ask(stage, callers(group + 1))
        finally:
            stage.redis.resume()
        log_cost(usual, fallen, "stopped")
        assert waited(stage) - before <= len(fallen.seconds) / 4
        assert all(25 <= passed <= LIMIT for passed in fallen.passed())
        log.info("recovered after %.1f s", await recovery(stage))
        before = waited(stage)
        again = await ask(stage, callers(group + 1))
        if waited(stage) == before:
            break
    assert all(
        one + other <= LIMIT for one, other in zip(fallen.passed(), again.passed(), strict=True)
    )


async def test_redis_flaps(stage: Stage) -> None:
    usual = await ask(stage, callers(60), 20)
    before = waited(stage)
    asking = asyncio.create_task(ask(stage, callers(61), 300, pause=0.15))
    while not asking.done():
        stage.redis.pause()
        await asyncio.sleep(1.5)
        stage.redis.resume()
        await asyncio.sleep(4.5)  # long enough to be trusted again
    outcome = await asking
    log_cost(usual, outcome, "flapping")
    assert waited(stage) - before <= len(outcome.seconds) / 4
    assert all(25 <= passed <= FLAPPING for passed in outcome.passed())
    log.info("recovered after %.1f s", await recovery(stage))


def waited(stage: Stage) -> float:
    """Calls that the store did not count: those in flight when it failed, and trials since."""
    return summed(stage, "kronos_rate_limit_store_failures_total")


def degraded_workers(stage: Stage) -> float:
    """Workers that are degraded."""
    return summed(stage, "kronos_rate_limit_degraded")


def summed(stage: Stage, metric: str) -> float:
    """The sum over all workers."""
    total = 0.0
    for service in stage.services:
        with OPENER.open(service.url + "/metrics") as answer:
            lines = answer.read().decode().splitlines()
        total += sum(float(line.split()[1]) for line in lines if line.startswith(f"{metric} "))
    return total


def log_cost(usual: Outcome, fallen: Outcome, what: str) -> None:
    """Log the cost for the reader of a report."""
    log.info(
        "%s: median and slowest call %.0f and %.0f ms before, %.0f and %.0f ms then; passed %s",
        what,
        *(
            seconds * 1000
            for outcome in (usual, fallen)
            for seconds in (median(outcome.seconds), max(outcome.seconds))
        ),
        sorted(fallen.passed()),
    )
