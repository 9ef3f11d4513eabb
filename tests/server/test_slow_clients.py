"""A thousand slow clients of each kind are disconnected, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import resource
import tempfile
from pathlib import Path

import pytest

from benchmarks.service import service
from benchmarks.slow_callers import GIVE_UP, KINDS
from benchmarks.slow_clients import others, slow_callers
from tests.oracle import make_oracle

pytestmark = pytest.mark.process

EACH = 1000


async def test_a_thousand_slow_clients_of_each_kind_are_disconnected() -> None:
    """Health checks and forecasts get their responses while all slow clients are connected.

    How long either takes depends on the machine: `python -m benchmarks.slow_clients` measures it.
    """
    wanted = len(KINDS) * EACH + 500
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files; the system grants {hard}")
    with tempfile.TemporaryDirectory() as folder:
        make_oracle("tiny", Path(folder))
        with service(Path(folder), GUNICORN_WORKERS=1, TORCH_THREADS=1) as running:
            url = running.url
            slow = [asyncio.create_task(slow_callers(url, kind, EACH)) for kind in KINDS]
            all_closed = asyncio.gather(*slow)
            healths, forecasts = await others(url, all_closed.done)
            closed = dict(zip(KINDS, await all_closed, strict=True))
    assert {kind: len(seconds) for kind, seconds in closed.items()} == dict.fromkeys(KINDS, EACH)
    # A client that the server never disconnects gives up by itself, at GIVE_UP exactly.
    left = {kind: sum(one == GIVE_UP for one in seconds) for kind, seconds in closed.items()}
    assert left == dict.fromkeys(KINDS, 0)
    assert len(healths) == len(forecasts) > 1
