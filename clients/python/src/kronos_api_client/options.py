"""What a caller may ask of a forecast, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

from kronos_api_client.series import Series

OVERRIDES: Final = ("temperature", "top_k", "top_p", "sample_count", "seed")
QUANTILE_PATHS: Final = 30
"""Sample paths that the service draws for quantiles or a summary without `sample_count`."""
LONGEST_ID: Final = 128


class Options(TypedDict, total=False):
    """Keyword arguments of a forecast; what is absent is the service's default.

    temperature: 0 is greedy, else at least 0.001.
    top_k: Sample from the likeliest `top_k` tokens; 0: all.
    top_p: Sample from the likeliest tokens that make up this probability, 0 < top_p ≤ 1.
    sample_count: Sample paths; the forecast is their mean.
    seed: The same request with the same seed has the same forecast.
    quantile_levels: Adds columns such as `close-q-0.1` for each level, 0 < level < 1.
    return_samples: Adds the sample paths as columns such as `close-s-0`.
    summary: Adds the columns `p_up`, `expected_return` and `volatility`, and `Forecast.summary`.
    levels: Prices; `Forecast.summary.p_touch` has the share of the paths that reach each.
    repair: Make the forecast possible candles (high ≥ open, volume ≥ 0, ...); true by default.
    repair_input: Move a high or low that lies within open and close by up to 0.1 %.
    bar_label: Which end of its bar a timestamp names, `open` or `close`.
    idempotency_key: The service answers the same request with this key by its first response, for
        as long as it keeps it; a key that was sent with another request is refused. 1 to 128
        visible ASCII characters; `stream` has none.
    prediction_timestamps: The future timestamps themselves, instead of horizon, freq and calendar:
        a DatetimeIndex, a polars Series or a sequence of datetimes.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None
    sample_count: int | None
    seed: int | None
    quantile_levels: Sequence[float] | None
    return_samples: bool
    summary: bool
    levels: Sequence[float] | None
    repair: bool
    repair_input: bool
    bar_label: Literal["open", "close"] | None
    idempotency_key: str | None
    prediction_timestamps: Any


def parameters(
    horizon: int, freq: str | None, calendar: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The part of a request that does not depend on the series; raises `TypeError`."""
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        known = ", ".join(sorted(Options.__annotations__))
        raise TypeError(f"unknown argument {unknown[0]!r}; known: {known}")
    given = {name: value for name, value in options.items() if value is not None}
    given.pop("idempotency_key", None)  # a header
    overrides = {name: given.pop(name) for name in OVERRIDES if name in given}
    for name in ("quantile_levels", "levels"):
        if name in given:
            given[name] = [float(level) for level in given[name]]
    if "prediction_timestamps" not in given:
        given["horizon"] = horizon
    given |= {"freq": freq, "calendar": calendar, "overrides": overrides or None}
    return {name: value for name, value in given.items() if value is not None}


def decode_steps(request: Mapping[str, Any]) -> int:
    """Sample paths times forecast steps of one series with these parameters."""
    paths = request.get("overrides", {}).get("sample_count")
    if paths is None:
        several = request.get("quantile_levels") or request.get("summary")
        paths = QUANTILE_PATHS if several else 1
    steps = request.get("horizon") or len(request.get("prediction_timestamps", ()))
    return int(paths) * int(steps)


def encode(series: Series, request: Mapping[str, Any], *, fallback_id: str | None = None) -> bytes:
    """The JSON of one series with the parameters of `request`.

    Ids longer than the service accepts, and absent ones, are replaced by `fallback_id`.
    """
    series_id = None if series.series_id is None else str(series.series_id)
    if not series_id or len(series_id) > LONGEST_ID:
        series_id = fallback_id
    body = {"candles": series.candles, "timestamps": series.timestamps, **request}
    if series_id is not None:
        body["series_id"] = series_id
    text = json.dumps(body, separators=(",", ":"), allow_nan=False, default=_plain)
    return text.encode()


def _plain(value: Any) -> Any:
    """A NumPy number as one of Python."""
    try:
        return value.item()
    except AttributeError:
        raise TypeError(f"a parameter is of type {type(value).__name__}") from None
