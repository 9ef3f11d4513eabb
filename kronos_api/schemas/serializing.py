"""From forecasts to the bytes of a response.

Numbers are float32, written with the fewest digits that read back as the same float32. The work
goes series by series, so that in a thread it lets the event loop in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from kronos_api.checkpoints.info import ModelInfo
from kronos_api.forecast import Forecast
from kronos_api.schemas.parsing import ParsedSeries
from kronos_api.schemas.warnings import warnings_of
from kronos_api.summary import as_dict
from kronos_api.timeseries import Continuation
from kronos_api.timeseries.features import FIELDS, Floats


@dataclass(frozen=True, slots=True, eq=False)
class SeriesForecast:
    """One series and its forecast at the timestamps of `future`."""

    series: ParsedSeries
    future: Continuation
    forecast: Forecast

    @property
    def size(self) -> int:
        """Numbers to be written."""
        paths = 0 if self.forecast.samples is None else len(self.forecast.samples)
        summary = 0 if self.forecast.summary is None else 3 * len(self.forecast.mean)
        return self.forecast.mean.size * (1 + len(self.forecast.quantiles) + paths) + summary

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite: JSON has no others."""
        samples = self.forecast.samples
        arrays = [self.forecast.mean, *self.forecast.quantiles.values()]
        arrays += [] if samples is None else [samples]
        return all(bool(np.isfinite(array).all()) for array in arrays)


def serialize_one(result: SeriesForecast, info: ModelInfo, total_ms: float) -> bytes:
    """One `PredictResponse` as JSON."""
    series, forecast = result.series, result.forecast
    names = ("timestamp", *FIELDS)
    content: dict[str, Any] = {
        "series_id": series.series_id,
        "prediction": [
            dict(zip(names, (text, *row), strict=True))
            for text, row in zip(result.future.timestamps.texts, forecast.mean, strict=True)
        ],
        "seed": series.params.seed,
        "context_used": forecast.context_used,
        "repaired": forecast.repaired,
        "warnings": [
            {"code": code, "message": message}
            for code, message in warnings_of(series, result.future, forecast, info)
        ],
        "model_version": info.model.version,
        "tokenizer_version": info.tokenizer.version,
        "timings_ms": {
            "queue": round(forecast.queue_ms, 3),
            "inference": round(forecast.inference_ms, 3),
            "total": round(total_ms, 3),
        },
        "demo": info.demo,
    }
    if forecast.quantiles:
        content["quantiles"] = {
            np.format_float_positional(level): _arrays(values)
            for level, values in forecast.quantiles.items()
        }
    if forecast.samples is not None:
        content["samples"] = [_arrays(path) for path in forecast.samples]
    if forecast.summary is not None:
        content["summary"] = as_dict(forecast.summary)
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def serialize_many(results: Sequence[SeriesForecast], info: ModelInfo, total_ms: float) -> bytes:
    """A list of `PredictResponse` as JSON, in order."""
    return b"[" + b",".join(serialize_one(one, info, total_ms) for one in results) + b"]"


def _arrays(values: Floats) -> dict[str, Floats]:
    """`values` [horizon, 6] by field, each contiguous, as orjson takes them."""
    return dict(zip(FIELDS, np.ascontiguousarray(values.T), strict=True))
