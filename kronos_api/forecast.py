"""A forecast in the units of its request, as the predictor returns it."""

from __future__ import annotations

from dataclasses import dataclass

from kronos_api.timeseries.features import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Aggregated sample paths, in the order of `features.FIELDS`.

    Attributes:
        mean: float32 [horizon, 6], over the sample paths.
        quantiles: level → float32 [horizon, 6].
        samples: float32 [sample_count, horizon, 6]; None unless the request asked for them.
        context_used: candles of the history that the model saw.
        repaired: values that `repair` changed.
        queue_ms, inference_ms: milliseconds in the queue and in the engine.
        floored: prices among the repaired values that were below the floor.
        scaled: whether prices were scaled before they were normalised.
    """

    mean: Floats
    quantiles: dict[float, Floats]
    samples: Floats | None
    context_used: int
    repaired: int
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    floored: int = 0
    scaled: bool = False
