"""What the engine is asked to forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from kronos_api.engine.sampling import SamplingParams
from kronos_api.timeseries.features import Floats, Ints, time_features
from kronos_api.timeseries.timestamps import Timestamps


@dataclass(frozen=True, slots=True, eq=False)
class ForecastRequest:
    """One series and how to forecast it, checked by the caller.

    Attributes:
        candles: float32 [history, 6] in the caller's units and the order of `features.FIELDS`.
        history_time_features, future_time_features: int64 [history, 5] and [horizon, 5], from
            `features.time_features`.
        params: how tokens are sampled, and how many sample paths.
        clip: normalised candles are clipped to ±clip.
        quantile_levels, return_samples, repair, summary, levels: how the predictor aggregates the
            sample paths; the engine ignores them. `levels` are the prices of `p_touch`.
    """

    candles: Floats
    history_time_features: Ints
    future_time_features: Ints
    params: SamplingParams
    clip: float = 5.0
    quantile_levels: tuple[float, ...] = ()
    return_samples: bool = False
    repair: bool = True
    summary: bool = False
    levels: tuple[float, ...] = ()

    @classmethod
    def following(
        cls,
        candles: Floats,
        history: Timestamps,
        future: Timestamps,
        params: SamplingParams,
        **options: Any,
    ) -> Self:
        """The request for the candles at `future`; `options` are the other attributes."""
        return cls(
            candles=candles,
            history_time_features=time_features(history.datetimes),
            future_time_features=time_features(future.datetimes),
            params=params,
            **options,
        )

    @property
    def history(self) -> int:
        """Candles of the history."""
        return len(self.candles)

    @property
    def horizon(self) -> int:
        """Candles to forecast."""
        return len(self.future_time_features)

    @property
    def sample_count(self) -> int:
        """Sample paths."""
        return self.params.sample_count
