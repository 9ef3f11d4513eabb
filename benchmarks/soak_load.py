"""The load of a soak: forecasts of several kinds, readers that leave, disconnects, and probes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.service import body
from tests.oracle import walk

ANSWERED, REFUSED, FAILED = "answered", "refused", "failed"
LEFT, DISCONNECTED = "left", "disconnected"
DISCONNECTS: Final = 0.01
"""Share of requests whose client closes the connection before it has the response."""
LEAVING: Final = 0.5
"""Share of readers of a stream that close the connection after the first candle."""
KINDS: Final = {"single": 0.70, "stream": 0.15, "paths": 0.10, "batch": 0.05}
"""Share of each kind of request: one path, a stream, 16 sample paths, a batch of four."""
PROBES: Final = ("/health", "/v1/healthz", "/v1/readyz")
LENGTHS: Final = 64
"""Different lengths of histories."""
TIMEOUT: Final = 120.0


@dataclass
class Minute:
    """What became of the requests that were sent in one minute."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Latencies of answered requests of the kind `single`."""
    probes: int = 0
    probes_failed: int = 0
    probe_seconds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """The same as numbers, latencies in milliseconds."""
        p50, p95, p99 = _quantiles(self.seconds)
        _, _, probe_p99 = _quantiles(self.probe_seconds)
        counts = {name: self.outcomes[name] for name in (ANSWERED, REFUSED, FAILED)}
        gone = {name: self.outcomes[name] for name in (LEFT, DISCONNECTED)}
        probes = {"probes": self.probes, "probes_failed": self.probes_failed}
        latency = {"p50": p50, "p95": p95, "p99": p99, "probe_p99": probe_p99}
        return counts | gone | probes | latency


class Load:
    """Requests of all kinds to one service, at most `callers` at once.

    `failures` counts errors by their text.
    """

    def __init__(self, url: str, callers: int, history: int, horizon: int, seed: int = 0) -> None:
        self.minutes: list[Minute] = []
        self.delayed = 0
        """Requests that waited for one of the callers to be free."""
        self._callers = callers
        self.failures: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._bodies = _bodies(history, horizon)
        # Requests wait for each other at the service, never for a connection of the client.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        headers = {"Content-Type": "application/json"}
        self._client = httpx.AsyncClient(
            base_url=url, timeout=TIMEOUT, limits=limits, headers=headers
        )
        self._began = time.monotonic()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def capacity(self, seconds: float) -> float:
        """Requests a second of callers that send the next when they have the response."""
        until = _over(seconds)
        self.minutes, self._began = [], time.monotonic()

        async def caller() -> None:
            while not until():
                await self._ask(self._kind(), disconnects=False)

        await asyncio.gather(*(caller() for _ in range(self._callers)))
        answered = sum(minute.outcomes[ANSWERED] for minute in self.minutes)
        if not answered:
            raise RuntimeError(f"no request was answered: {dict(self.failures)}")
        return answered / (time.monotonic() - self._began)

    async def steady(self, rate: float, seconds: float) -> None:
        """Send `rate` requests a second at random times, and probes.

        A request waits while all callers wait for a response: where other work slows the machine
        down, the load stays within the capacity that is left.
        """
        self.minutes, self._began = [], time.monotonic()
        until = _over(seconds)
        probing = asyncio.create_task(self._probe(until))
        free = asyncio.Semaphore(self._callers)
        asked: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not until():
            due = max(due + self._random.expovariate(rate), time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self.delayed += free.locked()
            await free.acquire()
            disconnects = self._random.random() < DISCONNECTS
            task = asyncio.create_task(self._ask(self._kind(), disconnects=disconnects))
            asked.add(task)
            task.add_done_callback(asked.discard)
            task.add_done_callback(lambda _: free.release())
        await asyncio.gather(probing, *asked)

    def _minute(self) -> Minute:
        number = int((time.monotonic() - self._began) // 60)
        while len(self.minutes) <= number:
            self.minutes.append(Minute())
        return self.minutes[number]

    def _kind(self) -> str:
        (kind,) = self._random.choices(list(KINDS), list(KINDS.values()))
        return kind

    async def _ask(self, kind: str, *, disconnects: bool) -> None:
        minute = self._minute()
        content = self._random.choice(self._bodies[kind])
        began = time.perf_counter()
        try:
            if disconnects:
                outcome = await self._disconnect(kind, content)
            elif kind == "stream":
                outcome = await self._read_stream(content)
            else:
                outcome = self._outcome(await self._client.post(_path(kind), content=content))
        except httpx.HTTPError as error:
            self.failures[f"{kind}: {type(error).__name__}"] += 1
            outcome = FAILED
        minute.outcomes[outcome] += 1
        if outcome == ANSWERED and kind == "single":
            minute.seconds.append(time.perf_counter() - began)

    async def _disconnect(self, kind: str, content: bytes) -> str:
        """Close the connection some time before the response, if that takes so long."""
        try:
            async with asyncio.timeout(self._random.uniform(0.001, 0.1)):
                return self._outcome(await self._client.post(_path(kind), content=content))
        except TimeoutError:
            return DISCONNECTED

    async def _read_stream(self, content: bytes) -> str:
        """Read a stream to its end, or leave after its first event."""
        leaves = self._random.random() < LEAVING
        async with self._client.stream("POST", _path("stream"), content=content) as response:
            text = ""
            async for piece in response.aiter_text():
                text += piece
                if leaves and "event: candle" in text:
                    return LEFT
            if response.status_code == 200 and "event: done" not in text:
                self.failures["stream: no event done"] += 1
                return FAILED
            return self._outcome(response)

    def _outcome(self, response: httpx.Response) -> str:
        if response.status_code in (429, 503):
            return REFUSED
        if response.status_code != 200:
            self.failures[f"status {response.status_code}"] += 1
            return FAILED
        return ANSWERED

    async def _probe(self, until: Callable[[], bool]) -> None:
        """Ask each probe in turn, one a second, on a connection of its own."""
        number = 0
        while not until():
            minute, path = self._minute(), PROBES[number % len(PROBES)]
            number += 1
            minute.probes += 1
            began = time.perf_counter()
            try:
                response = await self._client.get(path, headers={"Connection": "close"})
                minute.probes_failed += response.status_code != 200
            except httpx.HTTPError:
                minute.probes_failed += 1
            minute.probe_seconds.append(time.perf_counter() - began)
            await asyncio.sleep(1)


def _bodies(history: int, horizon: int) -> dict[str, list[bytes]]:
    """Requests of each kind, of several series and lengths."""
    bodies: dict[str, list[bytes]] = {kind: [] for kind in KINDS}
    for seed, length in enumerate(np.linspace(history / 8, history, LENGTHS).astype(int)):
        one = body(walk(int(length), seed), horizon, seed)
        many = one | {"overrides": {"seed": seed, "sample_count": 16}}
        items = [one | {"series_id": f"series-{number}"} for number in range(4)]
        bodies["single"].append(json.dumps(one).encode())
        bodies["stream"].append(json.dumps(one).encode())
        bodies["paths"].append(json.dumps(many).encode())
        bodies["batch"].append(json.dumps({"items": items}).encode())
    return bodies


def _path(kind: str) -> str:
    return f"/v1/predict/{'single' if kind == 'paths' else kind}"


def _over(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _quantiles(seconds: list[float]) -> tuple[float, float, float]:
    """The median, p95 and p99 in milliseconds; zeros without a value."""
    p50, p95, p99 = np.quantile(seconds or [0.0], [0.5, 0.95, 0.99]) * 1e3
    return float(p50), float(p95), float(p99)
