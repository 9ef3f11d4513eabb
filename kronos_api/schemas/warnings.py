"""What a caller should know of an answer that is given all the same."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import numpy as np

from kronos_api.aggregate import FEW_PATHS
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.forecast import Forecast
from kronos_api.schemas.parsing import ParsedSeries
from kronos_api.summary import tails_cut
from kronos_api.timeseries import Continuation, Timestamps

MOSTLY_INSIDE: Final = 0.1
"""Auctions and late prints make up less than this share of the timestamps."""
ALIKE: Final = 0.1
"""Steps that differ by less than this share are alike: February is as long as March."""


class WarningCode(StrEnum):
    """Why an answer deserves a second look."""

    DEMO_MODEL = "DEMO_MODEL"
    CONTEXT_TRIMMED = "CONTEXT_TRIMMED"
    FEW_PATHS = "FEW_PATHS"
    HISTORY_GAPS = "HISTORY_GAPS"
    INPUT_REPAIRED = "INPUT_REPAIRED"
    IRREGULAR_TIMESTAMPS = "IRREGULAR_TIMESTAMPS"
    OUTSIDE_SESSIONS = "OUTSIDE_SESSIONS"
    PRICE_FLOORED = "PRICE_FLOORED"
    SCALED = "SCALED"
    TAILS_CUT = "TAILS_CUT"


def warnings_of(
    series: ParsedSeries, future: Continuation, forecast: Forecast, info: ModelInfo
) -> Iterator[tuple[WarningCode, str]]:
    """Code and message of each warning."""
    if info.demo:
        yield WarningCode.DEMO_MODEL, "The bundled demonstration answered; it is not for trading."
    rows = len(series.candles)
    if forecast.context_used < rows:
        yield (
            WarningCode.CONTEXT_TRIMMED,
            f"The model saw the last {forecast.context_used} of {rows} candles; its window holds"
            f" {info.max_context}, with the horizon.",
        )
    yield from _of_sampling(series)
    if series.repaired_input:
        yield (
            WarningCode.INPUT_REPAIRED,
            f"repair_input moved {series.repaired_input} highs and lows of the history, which lay"
            " within open and close, to them.",
        )
    if series.future is not None and _irregular(series.history, future.timestamps):
        yield (
            WarningCode.IRREGULAR_TIMESTAMPS,
            "Most steps of prediction_timestamps are not those of timestamps. The model forecasts"
            " one candle after another; timestamps are their labels and all it knows of time.",
        )
    yield from _of_time(series, future)
    if forecast.floored:
        yield (
            WarningCode.PRICE_FLOORED,
            f"{forecast.floored} prices were below a thousandth of the lowest price of the history"
            " and were raised to it.",
        )
    if forecast.scaled:
        yield (
            WarningCode.SCALED,
            "Prices that deviate by less than 0.1 were scaled by a power of two before they were"
            " normalised, so that the forecast does not depend on their unit; the published"
            " implementation does not.",
        )


def _of_sampling(series: ParsedSeries) -> Iterator[tuple[WarningCode, str]]:
    """Warnings of few sample paths, and of a summary without its tails."""
    if (series.quantile_levels or series.summary) and series.params.sample_count < FEW_PATHS:
        asked = "Quantiles" if series.quantile_levels else "Summaries"
        yield (
            WarningCode.FEW_PATHS,
            f"{asked} of {series.params.sample_count} sample paths say little; ask for"
            " overrides.sample_count of 30 or more.",
        )
    if series.summary and (cut := tails_cut(series.params)):
        yield (
            WarningCode.TAILS_CUT,
            f"{cut} Set overrides.temperature and overrides.top_p to 1, overrides.top_k to 0.",
        )


def _of_time(series: ParsedSeries, future: Continuation) -> Iterator[tuple[WarningCode, str]]:
    """Warnings of gaps in the history and of timestamps outside the sessions of its calendar."""
    if (gaps := future.gaps) is not None:
        within = (
            f"the sessions of {series.calendar}"
            if series.calendar
            else "a history whose weekends, nights and recurring breaks are no gaps; holidays are,"
            " unless a calendar is given"
        )
        yield (
            WarningCode.HISTORY_GAPS,
            f"{gaps.missing} candles are missing in {gaps.count} gaps of timestamps, by {within}."
            f" The longest lasts {gaps.longest}, after timestamps[{gaps.after}]. The model takes"
            " the candles around a gap as neighbours.",
        )
    if future.outside > MOSTLY_INSIDE * len(series.history):
        yield (
            WarningCode.OUTSIDE_SESSIONS,
            f"{future.outside} of {len(series.history)} timestamps lie outside the sessions of"
            f" {series.calendar}, in which all future timestamps lie. Timestamps without an offset"
            " are read as the exchange's local time.",
        )


def _irregular(history: Timestamps, future: Timestamps) -> bool:
    """Whether fewer than half of the steps are like those of the history."""
    if len(history) < 2 or len(future) < 2:
        return False
    usual = np.median(np.diff(history.instants))
    steps = np.diff(future.instants)
    return bool(2 * np.count_nonzero(np.abs(steps - usual) <= ALIKE * usual) < len(steps))
