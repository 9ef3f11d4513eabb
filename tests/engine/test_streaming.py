"""Candles decoded along the steps are those of the forecast, and change no forecast."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kronos_api.batching.candle_channel import CandleChannel
from kronos_api.batching.scheduler import STREAMS_A_STEP, Scheduler
from kronos_api.batching.ticket import Ticket
from kronos_api.engine.engine import Engine
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.window import WindowPolicy
from kronos_api.timeseries.features import Floats, Scale
from tests.engine.conftest import MakeEngine
from tests.oracle import walk

Values = NDArray[np.float32]


class Recorder(CandleChannel):
    """Keeps what the engine's thread sends."""

    def __init__(self) -> None:
        self.parts: list[Values] = []

    def send(self, values: Floats, scale: Scale) -> None:
        del scale
        self.parts.append(values)


def run(engine: Engine, requests: list[ForecastRequest], streams: int) -> list[tuple[Values, ...]]:
    """Values of each of `requests`, advanced together, and what the first `streams` sent."""
    scheduler = Scheduler(len(requests), 1 << 33, 64)
    tickets = [Ticket(request, 0.0, 1e9, 1e9) for request in requests]
    channels = [Recorder() for _ in range(streams)]
    for ticket, channel in zip(tickets, channels, strict=False):
        ticket.channel = channel
    scheduler.add(tickets)
    while scheduler.waiting or scheduler.active:
        scheduler.advance(engine, lambda: 0.0)
    values = [ticket.future.result(0).values for ticket in tickets]
    return [
        (one, *(channels[n].parts if n < streams else ()))
        for n, one in enumerate(values)
        if one is not None
    ]


@pytest.mark.parametrize(
    ("history", "horizon", "paths", "policy"),
    [
        (30, 20, 3, "anchor"),
        (1, 5, 1, "anchor"),
        (60, 100, 3, "anchor"),  # three windows
        (60, 40, 2, "exact"),  # each candle has a segment of its own, all one window
    ],
)
def test_candles_come_step_by_step_and_are_those_of_the_forecast(
    engines: MakeEngine, history: int, horizon: int, paths: int, policy: WindowPolicy
) -> None:
    engine = engines("tiny", policy)
    request = walk(history).request(horizon, sample_count=paths, top_p=0.9, seed=3)
    ((values, *parts),) = run(engine, [request], streams=1)
    sent = np.concatenate(parts, axis=1)
    # The last candle is detokenized in the step that samples it; the forecast has it at once.
    assert horizon - paths <= sent.shape[1] <= horizon
    assert len(parts) >= (horizon - 2 * paths) / 2
    np.testing.assert_allclose(sent, values[:, : sent.shape[1]], rtol=1e-4, atol=1e-5)


def test_a_stream_changes_the_bits_of_no_forecast(tiny: Engine) -> None:
    requests = [
        walk(30 + n, seed=n).request(20 + n, sample_count=1 + n % 3, top_p=0.9, seed=n)
        for n in range(STREAMS_A_STEP + 3)
    ]
    without = run(tiny, requests, streams=0)
    streamed = run(tiny, requests, streams=len(requests) - 1)
    for (expected,), (found, *parts) in zip(without, streamed, strict=True):
        np.testing.assert_array_equal(found, expected)
        sent = np.concatenate([found[:, :0], *parts], axis=1)
        np.testing.assert_allclose(sent, found[:, : sent.shape[1]], rtol=1e-4, atol=1e-5)
    assert all(len(parts) > 1 for _, *parts in streamed[:-1])
