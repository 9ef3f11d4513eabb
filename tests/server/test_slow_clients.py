"""A thousand slow callers of each kind at once: they are let go, and nobody else notices."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.http import service
from benchmarks.slow_callers import KINDS
from benchmarks.slow_clients import others, slow_callers
from tests.oracle import make_oracle

pytestmark = pytest.mark.process

EACH = 1000
BAR = 15.0
"""Seconds in which all must be gone, and as many more as the machine stood still."""
HELD = 4_000.0
"""Milliseconds that no other caller takes unless it waits for slow ones to go. What others see is
far less: the benchmark prints it."""


async def stood_still(until: Callable[[], bool]) -> float:
    """Seconds by which this process woke up late until then: so long the machine did nothing."""
    late = 0.0
    while not until():
        began = time.monotonic()
        await asyncio.sleep(0.05)
        late += time.monotonic() - began - 0.05
    return late


async def test_a_thousand_of_each_kind() -> None:
    wanted = len(KINDS) * EACH + 500
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files; the system grants {hard}")
    with tempfile.TemporaryDirectory() as folder:
        make_oracle("tiny", Path(folder))
        with service(Path(folder), threads=1) as url:
            slow = [asyncio.create_task(slow_callers(url, kind, EACH)) for kind in KINDS]
            everyone = asyncio.gather(*slow)
            late = asyncio.create_task(stood_still(everyone.done))
            healths, forecasts = await others(url, everyone.done)
            closed = dict(zip(KINDS, await everyone, strict=True))
            bar = BAR + await late
    assert all(len(seconds) == EACH for seconds in closed.values())
    assert {kind: max(seconds) for kind, seconds in closed.items() if max(seconds) > bar} == {}
    assert max(healths) < HELD
    assert max(forecasts) < HELD
