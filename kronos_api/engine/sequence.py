"""One forecast inside the engine: what was asked, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kronos_api.engine.kv_cache import Memory
from kronos_api.engine.pace import Phase, Work
from kronos_api.engine.sampling import Options
from kronos_api.engine.window import Segment


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What the engine is asked for, in the network's own terms.

    candles: normalised, float32 [history, 6].
    history_time_features, future_time_features: int64 [history, 5] and [horizon, 5].
    """

    candles: NDArray[np.float32]
    history_time_features: NDArray[np.int64]
    future_time_features: NDArray[np.int64]
    temperature: float
    top_k: int
    top_p: float
    paths: int
    seed: int

    @property
    def history(self) -> int:
        """Candles known."""
        return len(self.candles)

    @property
    def horizon(self) -> int:
        """Candles asked for."""
        return len(self.future_time_features)


@dataclass(slots=True, eq=False)
class Sequence:
    """A running job. `work` is what must run alone before the next decode step, in chunks.

    left: what is left to do. turn: when it last had a turn to run a chunk.
    s1, s2: int64 [paths, history + horizon]; columns from `end` on are still to be decoded.
    times: embedded stamps [history + horizon, C].
    hidden: last hidden states [paths, C] of a prompt just encoded, until the next step uses them.
    values: normalised candles, float32 [paths, horizon, 6], once the forecast is done.
    """

    job: Job
    options: Options
    segments: list[Segment]
    uniforms: Tensor
    s1: Tensor
    s2: Tensor
    times: Tensor
    context_used: int
    end: int
    left: Work
    turn: int = 0
    steps_left: int = 0
    work: Iterator[Phase] | None = None
    memory: Memory | None = None
    hidden: Tensor | None = None
    values: NDArray[np.float32] | None = None
    failure: Exception | None = None

    @property
    def decoded(self) -> int:
        """Candles decoded so far."""
        return self.end - self.job.history

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do: there are values, or a failure."""
        return self.values is not None or self.failure is not None

    def fail(self, failure: Exception) -> None:
        """End without values and let go of the memory."""
        self.failure = failure
        self.release()

    def release(self) -> None:
        """Let go of what decoding needed."""
        self.work = self.memory = self.hidden = None
