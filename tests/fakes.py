"""Fakes at the service's own boundary: engines that forecast without a model."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Several
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kronos_api.checkpoints.info import ModelInfo, Part
from kronos_api.engine.engine import Engine
from kronos_api.engine.pace import Pace, PhaseCounts
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sequence import Sequence, SequenceStatus
from kronos_api.engine.streaming import CandleDecoder
from kronos_api.timeseries.features import normalise

FAKE_INFO = ModelInfo(
    model=Part("fake/model", "abc", "0" * 64, 1000),
    tokenizer=Part("fake/tokenizer", "def", "1" * 64, 100),
    max_context=512,
    dtype="float32",
    device="cpu",
    demo=False,
)


class FakeSequence(Sequence):
    """A forecast without tensors, for engines that compute nothing."""

    def __init__(
        self, request: ForecastRequest, remaining: PhaseCounts, *, steps: int, context_used: int = 0
    ) -> None:
        self.request = request
        self.steps = self.total_steps = steps  # until it ends
        self.normalised, self.scale = normalise(request.candles, request.clip)
        self.remaining = remaining
        self.context_used = context_used
        self.values: NDArray[np.float32] | None = None
        self.failure: Exception | None = None
        self.released = False
        self.entered = []
        self.begun = False  # whether it has taken a step

    @property
    def status(self) -> SequenceStatus:  # type: ignore[override]
        if self.ended:
            return SequenceStatus.DONE
        return SequenceStatus.DECODE if self.begun else SequenceStatus.PREFILL

    @property
    def ended(self) -> bool:
        return self.values is not None or self.failure is not None

    @property
    def decoded(self) -> int:
        """As if every step decoded its share of the horizon."""
        return self.request.horizon * (self.total_steps - self.steps) // self.total_steps

    def fail(self, failure: Exception) -> None:
        self.failure = failure

    def release(self) -> None:
        self.released = True


class FakeCandleDecoder(CandleDecoder):
    """Has each candle of a `FakeSequence` ready as soon as its step is taken."""

    def __init__(self) -> None:
        self.done = 0

    @property
    def cache_bytes(self) -> int:
        return 0

    def decode(self, sequence: Sequence) -> NDArray[np.float32]:
        assert isinstance(sequence, FakeSequence)
        first, self.done = self.done, sequence.decoded
        return _walk(sequence)[:, first : self.done]


@dataclass(slots=True, eq=False)
class SleepyEngine(Engine):
    """Sleeps a little every step and returns a random walk from the last close.

    `on_step` is called at the start of every step and may raise, or block.
    """

    seconds: float = 0.0
    steps: int = 5
    info: ModelInfo = FAKE_INFO
    on_step: Callable[[], None] = lambda: None
    bytes_a_request: int = 0
    pace: Pace = field(default_factory=Pace)
    runs: list[FakeSequence] = field(default_factory=list)

    def kv_cache_bytes(self, request: ForecastRequest) -> int:
        return self.bytes_a_request or request.sample_count

    def phase_counts(self, request: ForecastRequest) -> PhaseCounts:
        return PhaseCounts(request.sample_count, request.horizon)

    def candle_decoder(self, request: ForecastRequest) -> FakeCandleDecoder:
        del request
        return FakeCandleDecoder()

    def start(self, request: ForecastRequest) -> FakeSequence:
        context_used = min(request.history, self.info.max_context)
        counts = self.phase_counts(request)
        run = FakeSequence(request, counts, steps=self.steps, context_used=context_used)
        self.runs.append(run)
        return run

    def free_unused_memory(self) -> None:
        pass

    def step(self, sequences: Several[Sequence]) -> None:
        self.on_step()
        time.sleep(self.seconds / self.steps)
        for sequence in sequences:
            assert isinstance(sequence, FakeSequence)
            if not sequence.begun:
                sequence.begun = True
                sequence.entered.append((SequenceStatus.DECODE, time.monotonic()))
            sequence.steps -= 1
            if sequence.steps <= 0:
                sequence.values = _walk(sequence)


def _walk(sequence: FakeSequence) -> NDArray[np.float32]:
    """Sample paths, float32 [sample_count, horizon, 6], that depend on the seed alone."""
    request = sequence.request
    numbers = np.random.default_rng(request.params.seed)
    moves = numbers.normal(0, 0.05, (request.sample_count, request.horizon, 6)).cumsum(axis=1)
    walk: NDArray[np.float32] = (sequence.normalised[-1] + moves).astype(np.float32)
    return walk


@asynccontextmanager
async def stuck(engine: SleepyEngine) -> AsyncIterator[threading.Event]:
    """Until the event is set, at the latest at the end, `engine` takes no step."""
    release = threading.Event()

    def wait() -> None:
        release.wait(60)

    engine.on_step = wait
    try:
        yield release
    finally:
        release.set()
