"""The search for what a replica carries, against a service in this process, and the plan."""

from __future__ import annotations

import asyncio
from argparse import Namespace

import pytest

from benchmarks.carry import carried_rate, main, need
from kronos_api.app import create_app
from kronos_api.config import Settings
from tests.fakes import SleepyEngine
from tests.web import listening, predictor_of

REQUESTS = {"history": 8, "horizon": 2, "new_connections": True, "insecure": False}


@pytest.mark.parametrize(("limit", "carries"), [(30.0, True), (1e-6, False)])
async def test_the_highest_rate_within_the_limit_is_carried(limit: float, carries: bool) -> None:
    app = create_app(
        Settings(rate_limit_enabled=False), predictor=predictor_of(SleepyEngine(seconds=0.01))
    )
    options = Namespace(**REQUESTS, limit=limit, steps=2, seconds=0.2)
    async with listening(app) as (host, port):
        carried, rows = await asyncio.to_thread(carried_rate, f"http://{host}:{port}", options)
    assert len(rows) == 2
    assert all(row.refused == row.failed == 0 for row in rows)
    assert (carried > 0) is carries


def test_a_replica_in_twenty_is_spare() -> None:
    small, large = need(10, carried=5), need(5000, carried=5)
    assert (small.replicas, small.cores, small.machines) == (3, 6, 1)
    assert (large.replicas, large.cores, large.machines) == (1050, 2100, 70)
    assert small.cost(core_hour=0.1) == pytest.approx(438)


def test_the_plan_has_costs_only_with_a_price(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for price, costs in (([], False), (["--core-hour", "0.1"], True)):
        monkeypatch.setattr("sys.argv", ["carry", "--carried", "5", *price])
        main()
        assert ("cost" in capsys.readouterr().out) is costs
