"""Engines with random weights, made once a session by the published implementation."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import pytest
import torch

import kronos_api.engine.engine as engine_module
from kronos_api.batching.scheduler import Scheduler
from kronos_api.batching.ticket import Ticket
from kronos_api.engine.build import build_engine
from kronos_api.engine.engine import Engine
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence
from kronos_api.engine.window import WindowPolicy
from tests.oracle import MakeOracle, walk

MakeEngine = Callable[[str, WindowPolicy], Engine]


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> None:
    """One thread for small tests, so that threads do not wait for each other on a busy machine.

    One for slow tests as well where other processes of the same run have the other cores.
    """
    slow = request.node.get_closest_marker("slow") is not None
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    torch.set_num_threads((os.cpu_count() or 1) if slow and alone else 1)


@pytest.fixture(scope="session")
def engines(oracles: MakeOracle) -> MakeEngine:
    """Our engine on the weights of the oracle of that shape."""

    @cache
    def make(name: str, policy: WindowPolicy) -> Engine:
        oracle = oracles(name)
        return build_engine(
            *oracle.sources,
            device="cpu",
            max_context=oracle.shape.context,
            window_policy=policy,
            torch_threads=torch.get_num_threads(),
        )

    return make


@pytest.fixture(scope="session")
def tiny(engines: MakeEngine) -> Engine:
    """A small engine with a context of 64 that anchors its window."""
    return engines("tiny", "anchor")


@pytest.fixture
def one_chunk_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bursts, so that each step ends in the status that its chunk left."""
    monkeypatch.setattr(engine_module, "BURST_SECONDS", 0.0)


def together(engine: Engine, requests: list[ForecastRequest]) -> list[Sequence]:
    """The finished sequences of `requests`, submitted together, in their order."""
    scheduler = Scheduler(len(requests), 1 << 33, 64)
    tickets = [Ticket(request, 0.0, 1e9, 1e9) for request in requests]
    scheduler.add(tickets)
    while scheduler.waiting or scheduler.active:
        scheduler.advance(engine, lambda: 0.0)
    return [ticket.future.result(0) for ticket in tickets]


def mixed_requests() -> list[ForecastRequest]:
    options: list[dict[str, float]] = [
        {"top_k": 0, "top_p": 0.9, "sample_count": 1, "seed": 1},
        {"top_k": 1},
        {"top_k": 0, "top_p": 1.0, "sample_count": 5, "seed": 2, "temperature": 0.5},
        {"top_k": 8, "top_p": 0.8, "sample_count": 2, "seed": 3},
    ]
    sizes = [(3, 5), (40, 24), (64, 30), (17, 60), (1, 1), (50, 2)]
    return [
        walk(history, seed=index).request(horizon, **options[index % len(options)])
        for index, (history, horizon) in enumerate(sizes * 2)
    ]
