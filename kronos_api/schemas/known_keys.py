"""The known key that a caller probably meant by an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from kronos_api.schemas.requests import BatchRequest, Candle, Overrides, PredictRequest

UNKNOWN: Final = "absent: no such key is known"
LONGEST_KEY: Final = 64
"""Characters of a key that are compared and repeated."""
OTHER_NAMES: Final[Mapping[str, str]] = {
    "T": "overrides.temperature",
    "x_timestamp": "timestamps",
    "y_timestamp": "prediction_timestamps",
    "future_timestamps": "prediction_timestamps",
    "dates": "timestamps",
    "index": "timestamps",
    "kline_data": "candles",
    "klines": "candles",
    "ohlcv": "candles",
    "data": "candles",
    "df": "candles",
    "pred_days": "horizon",
    "steps": "horizon",
    "prediction_length": "horizon",
    "prediction_horizon": "horizon",
    "forecast_horizon": "horizon",
    "n_samples": "overrides.sample_count",
    "num_samples": "overrides.sample_count",
    "samples": "overrides.sample_count",
    "paths": "overrides.sample_count",
    "num_paths": "overrides.sample_count",
    "quantiles": "quantile_levels",
    "frequency": "freq",
    "interval": "freq",
    "timeframe": "freq",
    "exchange": "calendar",
    "market": "calendar",
    "symbol": "series_id",
    "ticker": "series_id",
    "series": "items",
    "requests": "items",
    **{name: f"candles.{name}" for name in Candle.model_fields},
}
"""Keys of other forecast services and of Kronos' own examples, and ours."""
CANDLE_NAMES: Final[Mapping[str, str]] = {
    **{"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vol": "volume"},
    **{"price": "close", "last": "close", "turnover": "amount", "quote_volume": "amount"},
}
TIMES: Final = frozenset(
    {"timestamp", "timestamps", "time", "date", "datetime", "open_time", "opentime", "ts", "t"}
)
PANDAS: Final = frozenset({"columns", "index", "data", "schema"})


def unknown_key(loc: tuple[int | str, ...]) -> str:
    """The rule that the unknown key at `loc` breaks, with the nearest known key."""
    key = str(loc[-1])[:LONGEST_KEY]
    parents = [part for part in loc[:-1] if isinstance(part, str)]
    if parents[:1] == ["candles"]:
        return f"{UNKNOWN}{_of_candles(key)}"
    if len(loc) == 1 and key in BatchRequest.model_fields:
        return f"{UNKNOWN}; several series are for /v1/predict/batch"
    if len(loc) == 1 and key in PredictRequest.model_fields:
        return f"{UNKNOWN}; one series is for /v1/predict/single, or is one of items"
    near = _nearest(key, parents[:1] == ["overrides"])
    if near is not None:
        return f"{UNKNOWN}; did you mean {near}?"
    known = Overrides if parents else PredictRequest
    return f"{UNKNOWN}; known are {', '.join(known.model_fields)}"


def _of_candles(key: str) -> str:
    name = key.lower()
    if name in TIMES:
        return "; timestamps are an array beside candles"
    if name in PANDAS:
        return '; pandas: send df.to_dict("list") or df.to_dict("records")'
    fields = list(Candle.model_fields)
    near = CANDLE_NAMES.get(name) or next(iter(difflib.get_close_matches(name, fields, n=1)), None)
    return f"; did you mean candles.{near}?" if near else f"; known are {', '.join(fields)}"


def _nearest(key: str, within_overrides: bool) -> str | None:
    overrides = {name: f"overrides.{name}" for name in Overrides.model_fields}
    own = {name: name for name in (*PredictRequest.model_fields, *BatchRequest.model_fields)}
    known = own | overrides if within_overrides else overrides | own
    if key in OTHER_NAMES:
        return OTHER_NAMES[key]
    near = difflib.get_close_matches(key.lower(), known, n=1)
    return known[near[0]] if near else None
