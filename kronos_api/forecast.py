"""A forecast in the units of its request, as the predictor returns it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kronos_api.timeseries.features import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What the sample paths say of risk; returns are simple, since the last close of the history.

    Attributes:
        p_up: share of the paths whose close is above the last close, float32 [horizon].
        expected_return: mean return, float32 [horizon].
        volatility: standard deviation of the log return, float32 [horizon]; not annualised.
        var_95, es_95: loss at the last step that 5 % of the paths exceed, and the mean loss of the
            paths that lose at least as much; negative where these paths gain.
        drawdown_median, drawdown_p95: quantiles of the largest fall of the close of a path.
        levels: prices, float32 [levels].
        p_touch: share of the paths that reach each level, float32 [levels].
    """

    p_up: Floats
    expected_return: Floats
    volatility: Floats
    var_95: np.float32
    es_95: np.float32
    drawdown_median: np.float32
    drawdown_p95: np.float32
    levels: Floats
    p_touch: Floats


@dataclass(frozen=True, slots=True, eq=False)
class ForecastSteps:
    """Consecutive steps of a forecast, aggregated over the sample paths.

    Attributes:
        first: number of the first of them, counted from 0.
        mean: float32 [n, 6].
        quantiles: level → float32 [n, 6].
    """

    first: int
    mean: Floats
    quantiles: dict[float, Floats]

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite: JSON has no others."""
        return all(bool(np.isfinite(one).all()) for one in (self.mean, *self.quantiles.values()))


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
        summary: None unless the request asked for it.
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
    summary: Summary | None = None

    def steps(self, first: int) -> ForecastSteps:
        """The steps from number `first` on."""
        quantiles = {level: values[first:] for level, values in self.quantiles.items()}
        return ForecastSteps(first, self.mean[first:], quantiles)
