"""What `kronos-api predict` prints of a forecast: a table, and notes on its limits."""

from __future__ import annotations

from rich import box
from rich.table import Table

from kronos_api.aggregate import FEW_PATHS
from kronos_api.cli.console import results
from kronos_api.engine.request import ForecastRequest
from kronos_api.forecast import Forecast, Summary
from kronos_api.summary import step_columns, tails_cut
from kronos_api.timeseries import Continuation, Timestamps
from kronos_api.timeseries.features import FIELDS


def forecast_notes(forecast: Forecast, request: ForecastRequest) -> list[str]:
    """The warnings of the service that concern the forecast, in the words of the options."""
    lines = []
    if (request.quantile_levels or request.summary) and request.sample_count < FEW_PATHS:
        asked = "quantiles" if request.quantile_levels else "summaries"
        lines.append(f"{asked} of {request.sample_count} paths say little; --samples 30 or more")
    if forecast.floored:
        lines.append(f"{forecast.floored} prices were raised to a thousandth of the lowest one")
    if forecast.scaled:
        lines.append("the prices are small and were scaled before they were normalised")
    if request.summary and (cut := tails_cut(request.params)):
        lines.append(f"{cut} Set --temperature 1 --top-p 1 --top-k 0.")
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
    risk = step_columns(forecast.summary)
    for name in risk:
        table.add_column(name, justify="right")
    for row, stamp in enumerate(future.texts):
        cuts = [values[row, close] for values in forecast.quantiles.values()]
        numbers = [f"{number:#.6g}" for number in (*forecast.mean[row, :5], *cuts)]
        table.add_row(stamp, *numbers, *(f"{values[row]:.2%}" for values in risk.values()))
    results().print(table)
    if forecast.summary is not None:
        results().print(_horizon_risk(forecast.summary))


def _horizon_risk(summary: Summary) -> Table:
    """The parts of a summary that are of the whole horizon."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("value at risk at the last candle, 95 %", f"{summary.var_95:.2%}")
    table.add_row("expected shortfall at the last candle, 95 %", f"{summary.es_95:.2%}")
    table.add_row("maximum drawdown, median", f"{summary.drawdown_median:.2%}")
    table.add_row("maximum drawdown, 95 %", f"{summary.drawdown_p95:.2%}")
    for level, share in zip(summary.levels, summary.p_touch, strict=True):
        table.add_row(f"paths that reach {level:g}", f"{share:.2%}")
    return table
