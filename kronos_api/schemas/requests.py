"""Requests as they come in. Types are strict: "1.5" and true are no numbers, 5.0 is no integer.

Bounds of single values stand here; rules that hold between values are in `timeseries.candles`
and `parsing`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Tag

from kronos_api.limits import (
    MAX_HISTORY,
    MAX_HORIZON,
    MAX_SEED,
    MAX_TEMPERATURE,
    MAX_TOP_K,
)
from kronos_api.timeseries import BarLabel
from kronos_api.timeseries.candles import MAX_VALUE

Price = Annotated[float, Field(json_schema_extra={"exclusiveMinimum": 0, "maximum": MAX_VALUE})]
Quantity = Annotated[float, Field(json_schema_extra={"minimum": 0, "maximum": MAX_VALUE})]
Prices = Annotated[list[Price], Field(max_length=MAX_HISTORY)]
Quantities = Annotated[list[Quantity], Field(max_length=MAX_HISTORY)]
LevelPrice = Annotated[float, Field(gt=0, le=MAX_VALUE, allow_inf_nan=False)]
Level = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class RequestModel(BaseModel):
    """Strict types, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Candle(RequestModel):
    """One candle. Volume, and amount with it, stand in all candles of a series or in none."""

    open: Price
    high: Price
    low: Price
    close: Price
    volume: Quantity | None = None
    amount: Quantity | None = None


class Columns(RequestModel):
    """The candles of one series as arrays of the same length."""

    open: Annotated[Prices, Field(min_length=1)]
    high: Prices
    low: Prices
    close: Prices
    volume: Quantities | None = None
    amount: Quantities | None = None


class Overrides(RequestModel):
    """What this forecast does differently from the service's defaults."""

    pred_len: int | None = Field(default=None, ge=1, le=MAX_HORIZON)
    """Forecast steps; with `prediction_timestamps` or `horizon` it must agree with them."""
    temperature: float | None = Field(default=None, ge=0, le=MAX_TEMPERATURE, allow_inf_nan=False)
    """0 is greedy; else at least 0.001."""
    top_k: int | None = Field(default=None, ge=0, le=MAX_TOP_K)
    """Sample from the likeliest `top_k` tokens; 0: all. Applied before `top_p`."""
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Sample from the likeliest tokens that make up this probability."""
    sample_count: int | None = Field(default=None, ge=1)
    """Sample paths; the service sets an upper bound."""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """The same request with the same seed has the same forecast."""


class PredictRequest(RequestModel):
    """One series and what is asked of it.

    The future is given by `prediction_timestamps`, or by `horizon` with `freq` and `calendar`,
    or left to the service's default length.
    """

    series_id: str | None = Field(default=None, min_length=1, max_length=128)
    """Comes back in the response."""
    candles: (
        Annotated[
            list[Candle],
            Field(min_length=1, max_length=MAX_HISTORY),
            Tag("rows"),
        ]
        | Annotated[Columns, Tag("columns")]
    )
    """Oldest first. low ≤ open, close ≤ high; without amount it is volume times mean price."""
    timestamps: list[Timestamp] = Field(min_length=1, max_length=MAX_HISTORY)
    """One for each candle: ISO 8601, strictly ascending, all with or all without an offset, such as
    2025-06-02T09:30:00Z, 2025-06-02 09:30-04:00, 20250602T093000Z or 2025-06-02."""
    prediction_timestamps: list[Timestamp] | None = Field(
        default=None, min_length=1, max_length=MAX_HORIZON
    )
    """The future timestamps, all after the last of `timestamps`: labels, one for each candle of the
    forecast, however far apart they lie."""
    horizon: int | None = Field(default=None, ge=1, le=MAX_HORIZON)
    """Number of future timestamps to make."""
    freq: str | None = Field(default=None, max_length=32)
    """Step between them as a pandas offset; inferred from three or more `timestamps`."""
    calendar: str | None = Field(default=None, max_length=32)
    """Exchange code, such as XNYS, or CRYPTO, FX, NSE, SZSE (`GET /v1/calendars` lists all): the
    future timestamps fall into its sessions only, and go on as the bars of `timestamps` do.

    Timestamps without an offset are read as the exchange's local time. `timestamps` must end
    between 1970 and seven years from now."""
    bar_label: BarLabel | None = None
    """Which end of its bar a timestamp names: open by default, or close where timestamps lie on
    closing times. With a calendar, it decides where the future bars begin."""
    overrides: Overrides | None = None
    """Each key on its own replaces a default of the service."""
    quantile_levels: list[Level] | None = Field(default=None, max_length=20)
    """Quantiles over the sample paths, for all six fields. Without `overrides.sample_count`, 30
    paths are drawn; of one path there are no quantiles."""
    return_samples: bool = False
    """Whether the sample paths themselves come back; false by default."""
    summary: bool = False
    """Risk over the sample paths: probabilities, returns, losses, drawdowns; false by default.
    Without `overrides.sample_count`, 30 paths are drawn; one path has no summary."""
    levels: list[LevelPrice] | None = Field(default=None, max_length=20)
    """Prices for which `summary` has the share of the paths that reach them."""
    repair: bool = True
    """Make what comes back possible candles: high and low enclose open and close, volume ≥ 0.
    No price is below a thousandth of the lowest of the history. Mean, quantiles and samples are
    repaired each by itself. True by default."""
    repair_input: bool = False
    """Move a high or low that lies within open and close by up to 0.1 % of the price, as some
    exchanges report them; false by default, which refuses them."""


class BatchItem(PredictRequest):
    """One series of a batch."""

    series_id: str = Field(min_length=1, max_length=128)


class BatchRequest(RequestModel):
    """Several series, answered in order, all or none; they may differ in everything."""

    items: list[BatchItem] = Field(min_length=1, max_length=1024, fail_fast=True)
