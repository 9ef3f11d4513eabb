"""Slow, flooding and idle peers: when they are closed, and what listed callers notice."""

from __future__ import annotations

import asyncio
import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.crowd import TARGET_CALLERS, TARGET_SECONDS, Crowd
from benchmarks.flooding_clients import KINDS as FLOODS
from benchmarks.flooding_clients import UNLISTED, beside
from benchmarks.service import service
from benchmarks.slow_callers import KINDS
from benchmarks.slow_clients import measure as slow_clients
from benchmarks.slow_clients import others, over, slow_callers
from tests.faults.figures import Figure
from tests.oracle import make_oracle

SLOW: Final = {False: 100, True: 1000}
"""Connections of each kind."""
FLOODING: Final = 4
CLOSED_S: Final = 15.0
HEALTH_MS: Final = 100.0
RATIO: Final = 2.0
"""Latency of others beside them to their latency alone; an idle machine has 1.0 to 1.3."""


@contextmanager
def listed_alone() -> Iterator[str]:
    """A service of one worker that lists 127.0.0.1 only."""
    with tempfile.TemporaryDirectory() as folder:
        make_oracle("tiny", Path(folder))
        settings = {"CONTAINER_WHITELIST": "127.0.0.1", "TORCH_THREADS": 1}
        with service(Path(folder), GUNICORN_WORKERS=1, **settings) as running:
            yield running.url


def slow(*, long: bool) -> list[Figure]:
    """Slow headers, slow bodies, idle and silent connections."""
    found = []
    with listed_alone() as url:
        for kind in KINDS:
            row = asyncio.run(slow_clients(url, kind, SLOW[long]))
            ratio = row["healthz_p99_stay"] / row["healthz_p99_before"]
            found += [
                Figure(f"{kind}: last closed, s", row["closed_last"], CLOSED_S),
                Figure(f"{kind}: p99 of /v1/healthz, times that before", ratio, RATIO),
            ]
    return found


def flooding(*, long: bool) -> list[Figure]:
    """One-byte chunks and headers of 16,000 lines from a peer that is not listed."""
    found = []
    seconds = 10.0 if long else 2.0
    with listed_alone() as url:
        for kind in FLOODS:
            alone = asyncio.run(beside(url, None, 0, seconds))
            row = asyncio.run(beside(url, kind, FLOODING, seconds))
            ratio = row["forecast_p50"] / alone["forecast_p50"]
            found += [
                Figure(f"{kind}: longest /v1/healthz, ms", row["healthz_max"], HEALTH_MS),
                Figure(f"{kind}: median forecast, times that alone", ratio, RATIO),
            ]
    return found


def unfinished(*, long: bool) -> list[Figure]:
    """Unfinished bodies and idle connections of one peer that is not listed."""
    found = []
    with listed_alone() as url:
        for kind in ("body", "idle"):
            before = asyncio.run(others(url, over(5)))
            meanwhile = asyncio.run(_beside(url, kind, SLOW[long]))
            for what, alone, now in zip(("healthz", "forecast"), before, meanwhile, strict=True):
                ratio = float(np.median(now) / np.median(alone))
                found.append(Figure(f"{kind}: median {what}, times that alone", ratio, RATIO))
    return found


async def _beside(url: str, kind: str, count: int) -> tuple[list[float], list[float]]:
    closing = asyncio.create_task(slow_callers(url, kind, count, UNLISTED))
    found = await others(url, closing.done)
    await closing
    return found


def crowd(*, long: bool) -> list[Figure]:
    """Twenty callers at once, Kronos-small, 400 candles, horizon 24, int8."""
    options = Namespace(history=400, horizon=24, new_connections=False, insecure=False)
    with tempfile.TemporaryDirectory() as folder:
        make_oracle("small", Path(folder))
        with service(Path(folder), DTYPE="int8") as running:
            callers = Crowd(running.url, options)
            callers.measure(1, 2)
            row = callers.measure(TARGET_CALLERS, (5 if long else 1) * TARGET_CALLERS)
    return [
        Figure("cores", os.cpu_count() or 1),
        Figure("requests/s", row.rate),
        Figure("p50, s", row.p50),
        Figure("p95, s", row.p95, TARGET_SECONDS),
        Figure("refused or failed", row.refused + row.failed, 0),
    ]
