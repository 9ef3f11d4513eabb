"""A service at three times its capacity: every response is 200, 429 or 503, and probes answer.

The service runs a real model of the smallest shape, so that the processor is the bottleneck.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from benchmarks.service import body, service
from tests.faults.figures import Figure
from tests.oracle import make_oracle, walk

SECONDS: Final = {False: 5.0, True: 30.0}
TIMES: Final = 3
DEADLINE: Final = 60.0
"""KRONOS_REQUEST_TIMEOUT, in which an accepted request has its response."""
REFUSAL_MS: Final = 50.0
HEALTH_MS: Final = 100.0


class Asked:
    """Responses by status, with the seconds of each."""

    def __init__(self) -> None:
        self.seconds: dict[int, list[float]] = {}

    async def ask(self, client: httpx.AsyncClient, content: bytes) -> None:
        """Ask for one forecast; 0 stands for a connection that failed."""
        began = time.perf_counter()
        try:
            response = await client.post("/v1/predict/single", content=content)
            status = response.status_code
        except httpx.HTTPError:
            status = 0
        self.seconds.setdefault(status, []).append(time.perf_counter() - began)

    def statuses(self) -> Counter[int]:
        """How many responses had each status."""
        return Counter({status: len(seconds) for status, seconds in self.seconds.items()})


async def overload(url: str, seconds: float) -> tuple[float, Asked, list[float]]:
    """The capacity in requests a second, the responses at three times of it, and probes in ms."""
    content = json.dumps(body(walk(48), 12)).encode()
    options = {"headers": {"Content-Type": "application/json"}, "timeout": 2 * DEADLINE}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, limits=limits, **options) as client:  # type: ignore[arg-type]
        alone = Asked()
        end = time.monotonic() + seconds

        async def caller() -> None:
            while time.monotonic() < end:
                await alone.ask(client, content)

        await asyncio.gather(*(caller() for _ in range(8)))
        capacity = alone.statuses()[200] / seconds
        crowd, probes = Asked(), list[float]()
        tasks: set[asyncio.Task[None]] = set()
        began = due = time.monotonic()
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as prober:
            while due - began < seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.add(asyncio.create_task(crowd.ask(client, content)))
                due += 1 / (TIMES * capacity)
                if len(tasks) % 10 == 0:
                    start = time.perf_counter()
                    (await prober.get("/health")).raise_for_status()
                    probes.append((time.perf_counter() - start) * 1e3)
            await asyncio.gather(*tasks)
    return capacity, crowd, probes


def measure(*, long: bool) -> list[Figure]:
    """Statuses other than 200, 429 and 503, and times of refusals, probes and responses."""
    with tempfile.TemporaryDirectory() as folder:
        make_oracle("tiny", Path(folder))
        settings = {
            "GUNICORN_WORKERS": 1,
            "TORCH_THREADS": 1,
            "MAX_QUEUE": 16,
            "MAX_BATCH_ITEMS": 16,
        }
        with service(Path(folder), **settings) as running:
            capacity, crowd, probes = asyncio.run(overload(running.url, SECONDS[long]))
    refused = crowd.seconds.get(503, []) + crowd.seconds.get(429, [])
    statuses = crowd.statuses()
    others = statuses.total() - statuses[200] - statuses[429] - statuses[503]
    return [
        Figure("capacity, requests/s", capacity),
        Figure("responses", statuses.total()),
        Figure("refused", len(refused)),
        Figure("not refused at all (1 if so)", float(not refused), 0),
        Figure("other statuses than 200, 429, 503", others, 0),
        Figure("median of a refusal, ms", float(np.median(refused or [0])) * 1e3, REFUSAL_MS),
        Figure("/health p99, ms", float(np.quantile(probes, 0.99)), HEALTH_MS),
        Figure("slowest accepted, s", max(crowd.seconds.get(200, [0.0])), DEADLINE),
    ]
