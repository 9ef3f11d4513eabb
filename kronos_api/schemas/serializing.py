"""From forecasts to the bytes of a response.

Numbers are float32 and written with the fewest digits that read back as the same float32. The
work goes series by series and path by path, so that done in a thread it lets the event loop in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from kronos_api.checkpoints.info import ModelInfo
from kronos_api.forecast import Forecast
from kronos_api.schemas.parsing import ParsedSeries
from kronos_api.schemas.warnings import warnings_of
from kronos_api.timeseries import Continuation
from kronos_api.timeseries.features import FIELDS, Floats

_DIGITS: Final = (6, 7, 8, 9)
"""Significant digits tried in turn: nine tell any float32 from all others."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesForecast:
    """One series and its forecast at the timestamps `future`."""

    series: ParsedSeries
    future: Continuation
    forecast: Forecast

    @property
    def size(self) -> int:
        """Numbers to be written."""
        paths = 0 if self.forecast.samples is None else len(self.forecast.samples)
        return self.forecast.mean.size * (1 + len(self.forecast.quantiles) + paths)

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
    rows = shortest(forecast.mean).tolist()
    names = ("timestamp", *FIELDS)
    content: dict[str, object] = {
        "series_id": series.series_id,
        "prediction": [
            dict(zip(names, (text, *row), strict=True))
            for text, row in zip(result.future.timestamps.texts, rows, strict=True)
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
    parts = [to_json(content)[:-1]]
    if forecast.quantiles:
        levels = (
            b'"%s":%s' % (np.format_float_positional(level).encode(), _arrays(values))
            for level, values in forecast.quantiles.items()
        )
        parts.append(b'"quantiles":{' + b",".join(levels) + b"}")
    if forecast.samples is not None:
        parts.append(b'"samples":[' + b",".join(map(_arrays, forecast.samples)) + b"]")
    return b",".join(parts) + b"}"


def serialize_many(results: Sequence[SeriesForecast], info: ModelInfo, total_ms: float) -> bytes:
    """A list of `PredictResponse` as JSON, in order."""
    return b"[" + b",".join(serialize_one(one, info, total_ms) for one in results) + b"]"


def _arrays(values: Floats) -> bytes:
    """`values` [horizon, 6] as one JSON object of six arrays."""
    return to_json(dict(zip(FIELDS, shortest(values.T).tolist(), strict=True)))


def shortest(values: Floats) -> NDArray[np.float64]:
    """The float64 whose decimal form is the shortest that reads back as `values`, all finite.

    A float64 is written with up to 17 digits, of which a float32 has 9 at most: each value is
    rounded to as few decimal digits as still give the same float32.
    """
    single = values.ravel()
    wide = single.astype(np.float64)
    result = wide.copy()
    size = np.abs(wide)
    exponent = np.floor(np.log10(size, where=size > 0, out=np.zeros_like(size)))
    left = np.arange(single.size)
    for digits in _DIGITS:
        shift = digits - 1 - exponent[left]
        power = 10.0 ** np.abs(shift)
        # Dividing by a power of ten rounds correctly, multiplying by its inverse does not.
        rounded = np.where(
            shift >= 0, np.rint(wide[left] * power) / power, np.rint(wide[left] / power) * power
        )
        same = rounded.astype(np.float32) == single[left]
        result[left[same]] = rounded[same]
        left = left[~same]
    return result.reshape(values.shape)
