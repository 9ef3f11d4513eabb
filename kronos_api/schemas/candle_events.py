"""The data of `candle` events: one forecast step each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from kronos_api.forecast import ForecastSteps
from kronos_api.timeseries import Timestamps
from kronos_api.timeseries.features import FIELDS


def candle_events(steps: ForecastSteps, timestamps: Timestamps) -> Iterator[bytes]:
    """Each of `steps` as a `CandleEvent` in JSON; `timestamps`: those of the whole forecast."""
    for row, candle in enumerate(steps.mean):
        step = steps.first + row
        content: dict[str, Any] = {"step": step, "timestamp": timestamps.texts[step]}
        content |= zip(FIELDS, candle, strict=True)
        if steps.quantiles:
            content["quantiles"] = {
                np.format_float_positional(level): dict(zip(FIELDS, values[row], strict=True))
                for level, values in steps.quantiles.items()
            }
        yield orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
