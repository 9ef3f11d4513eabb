"""One forecast inside the engine: what was asked, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kronos_api.engine.kv_cache import Memory
from kronos_api.engine.pace import Phase, Work
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingTensors
from kronos_api.engine.window import Segment
from kronos_api.timeseries.features import Scale


@dataclass(slots=True, eq=False)
class Sequence:
    """A running forecast. `work` must run alone, in chunks, before its next decode step.

    scale: restores `values` to the units of the request.
    left: what is left to do. turn: when it last had a turn to run a chunk.
    s1, s2: int64 [sample_count, history + horizon]; columns from `end` on are not decoded yet.
    times: embedded stamps [history + horizon, C].
    hidden: last hidden states [sample_count, C] of a prompt just encoded, until they are used.
    values: normalised candles, float32 [sample_count, horizon, 6], once the forecast is done.
    """

    request: ForecastRequest
    scale: Scale
    params: SamplingTensors
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
        return self.end - self.request.history

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
