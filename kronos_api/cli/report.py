"""What `kronos-api predict` prints of a forecast: a table, and notes on its limits."""

from __future__ import annotations

from rich import box
from rich.table import Table

from kronos_api.aggregate import FEW_PATHS
from kronos_api.cli.console import results
from kronos_api.engine.request import ForecastRequest
from kronos_api.forecast import Forecast
from kronos_api.timeseries import Continuation, Timestamps
from kronos_api.timeseries.features import FIELDS


def forecast_notes(forecast: Forecast, request: ForecastRequest) -> list[str]:
    """The warnings of the service that concern the forecast, in the words of the options."""
    lines = []
    if request.quantile_levels and request.sample_count < FEW_PATHS:
        lines.append(f"quantiles of {request.sample_count} paths say little; --samples 30 or more")
    if forecast.floored:
        lines.append(f"{forecast.floored} prices were raised to a thousandth of the lowest one")
    if forecast.scaled:
        lines.append("the prices are small and were scaled before they were normalised")
    return lines


def time_notes(history: Timestamps, continued: Continuation) -> list[str]:
    """What to know of the timestamps, as the service's warnings say it."""
    lines = []
    if (gaps := continued.gaps) is not None:
        lines.append(
            f"{gaps.missing} candles are missing in {gaps.count} gaps; the longest lasts"
            f" {gaps.longest}, after {history.texts[gaps.after]}"
        )
    if continued.outside:
        lines.append(f"{continued.outside} times lie outside the sessions of the calendar")
    return lines


def show(title: str, forecast: Forecast, future: Timestamps) -> None:
    """Print the mean, and the quantiles of the close, a row a candle."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("time", no_wrap=True)
    for name in FIELDS[:5]:
        table.add_column(name, justify="right")
    close = FIELDS.index("close")
    for level in forecast.quantiles:
        table.add_column(f"close {level * 100:g} %", justify="right")
    for row, stamp in enumerate(future.texts):
        cuts = [values[row, close] for values in forecast.quantiles.values()]
        numbers = [*forecast.mean[row, :5], *cuts]
        table.add_row(stamp, *(f"{number:#.6g}" for number in numbers))
    results().print(table)
