"""One forecast inside the engine: its request, its status, and what it has decoded so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.pace import Phase, PhaseCounts
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingTensors
from kronos_api.engine.window import Segment
from kronos_api.timeseries.features import Scale


class SequenceStatus(Enum):
    """What a sequence needs next.

    TOKENIZE → PREFILL → DECODE → DETOKENIZE → DONE. DECODE returns to PREFILL where the window is
    full and another segment follows; every status may end in FAILED.
    """

    TOKENIZE = "tokenize"
    PREFILL = "prefill"
    DECODE = "decode"
    DETOKENIZE = "detokenize"
    DONE = "done"
    FAILED = "failed"


class Chunks(Protocol):
    """A phase that runs for one sequence at a time, in chunks between decode steps."""

    @property
    def phase(self) -> Phase:
        """Which phase it is."""
        ...

    def run(self, sequence: Sequence) -> bool:
        """Run the next chunk; returns whether it was the last one."""
        ...


@dataclass(slots=True, eq=False)
class Sequence:
    """A running forecast.

    Attributes:
        scale: restores `values` to the units of the request.
        sampling: parameters of every sample path as tensors.
        segments: windows to prefill and decode that are still to come.
        uniforms: random numbers, float64 [sample_count, horizon, 2], for s1 and s2.
        s1, s2: int64 [sample_count, history + horizon].
        times: embedded time features [history + horizon, C].
        context_used: rows of the history that the model sees.
        num_tokens: candles that have tokens once the history is tokenized; the columns of s1 and s2
            from there on are not decoded yet.
        remaining: chunks and decode steps to the end of the forecast.
        turn: when it last ran a chunk.
        steps_left: candles to decode in the current segment.
        chunks: chunks of the current phase (TOKENIZE, PREFILL, DETOKENIZE).
        cache: keys and values of the current segment (DECODE).
        values: normalised candles, float32 [sample_count, horizon, 6] (DONE).
        failure: why it ended without values (FAILED).
        entered: statuses that it has entered, with `time.monotonic`; its caller may clear them.
    """

    request: ForecastRequest
    scale: Scale
    sampling: SamplingTensors
    segments: list[Segment]
    uniforms: Tensor
    s1: Tensor
    s2: Tensor
    times: Tensor
    context_used: int
    num_tokens: int
    remaining: PhaseCounts
    chunks: Chunks | None
    status: SequenceStatus = SequenceStatus.TOKENIZE
    turn: int = 0
    steps_left: int = 0
    cache: KVCache | None = None
    values: NDArray[np.float32] | None = None
    failure: Exception | None = None
    entered: list[tuple[SequenceStatus, float]] = field(default_factory=list)

    @property
    def sample_count(self) -> int:
        """Sample paths, which are rows in a decode step."""
        return self.request.sample_count

    @property
    def decoded(self) -> int:
        """Candles decoded so far."""
        return self.num_tokens - self.request.history

    @property
    def in_short_phase(self) -> bool:
        """Whether a prompt of history or a last chunk is next: few chunks, however many paths."""
        if self.status is SequenceStatus.DETOKENIZE:
            return self.remaining.detokenize == 1
        return self.decoded == 0 and self.status in (
            SequenceStatus.TOKENIZE,
            SequenceStatus.PREFILL,
        )

    @property
    def ended(self) -> bool:
        """Whether it is done or has failed."""
        return self.status in (SequenceStatus.DONE, SequenceStatus.FAILED)

    def begin(self, status: SequenceStatus, chunks: Chunks) -> None:
        """Enter a phase that runs in chunks; the cache of the segment before is released."""
        self.status, self.chunks, self.cache = status, chunks, None
        self.entered.append((status, time.monotonic()))

    def begin_decoding(self, cache: KVCache, steps: int) -> None:
        """Decode `steps` candles after the prompt in `cache`."""
        self.status, self.chunks, self.cache = SequenceStatus.DECODE, None, cache
        self.entered.append((self.status, time.monotonic()))
        self.steps_left = steps

    def append(self, s1: Tensor, s2: Tensor) -> None:
        """Store the tokens of one decoded candle, int64 [sample_count] each."""
        self.s1[:, self.num_tokens] = s1
        self.s2[:, self.num_tokens] = s2
        self.num_tokens += 1
        self.steps_left -= 1
        self.remaining.steps -= 1

    def finish(self, values: NDArray[np.float32]) -> None:
        """End with `values`."""
        self.status, self.values = SequenceStatus.DONE, values
        self.release()

    def fail(self, failure: Exception) -> None:
        """End without values."""
        self.status, self.failure = SequenceStatus.FAILED, failure
        self.release()

    def release(self) -> None:
        """Release the KV cache and the state of the current phase."""
        self.chunks = self.cache = None
