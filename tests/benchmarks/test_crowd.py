"""The crowd benchmark against a service in this process."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from benchmarks.crowd import Crowd
from kronos_api.app import create_app
from kronos_api.config import Settings
from tests.fakes import SleepyEngine
from tests.web import listening, predictor_of

OPTIONS = Namespace(history=8, horizon=2, new_connections=False, insecure=False)


async def test_every_request_is_counted_as_answered_or_refused() -> None:
    settings = Settings(rate_limit_per_minute=10)
    app = create_app(settings, predictor=predictor_of(SleepyEngine(seconds=0.01)))
    async with listening(app) as (host, port):
        crowd = Crowd(f"http://{host}:{port}", OPTIONS)
        row = await asyncio.to_thread(crowd.measure, 3, 9)
        assert (row.callers, row.refused, row.failed) == (3, 0, 0)
        assert row.rate > 0
        assert 0 < row.p50 <= row.p95 <= row.p99
        two = Crowd(f"http://{host}:{port}", OPTIONS)
        two.wait = lambda _seconds: None  # 429 asks for up to a minute
        assert (await asyncio.to_thread(two.measure, 1, 3)).refused == 2


async def test_unreachable_service_counts_as_failed() -> None:
    row = await asyncio.to_thread(Crowd("http://127.0.0.1:9", OPTIONS).measure, 2, 4)
    assert (row.failed, row.refused, row.rate) == (4, 0, 0.0)
