"""What `kronos-api predict` prints of a forecast: a table, and notes on its limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import typer
from rich import box
from rich.live import Live
from rich.table import Table

from kronos_api.aggregate import FEW_PATHS
from kronos_api.cli.console import results
from kronos_api.engine.request import ForecastRequest
from kronos_api.forecast import Forecast, ForecastSteps, Summary
from kronos_api.summary import CLOSE, step_columns, tails_cut
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
    risk = step_columns(forecast.summary)
    table = _table(title, [*_headings(forecast.quantiles), *risk])
    for row, numbers in enumerate(_rows(forecast.steps(0))):
        shares = (f"{values[row]:.2%}" for values in risk.values())
        table.add_row(future.texts[row], *numbers, *shares)
    results().print(table)
    show_risk(forecast)


def show_risk(forecast: Forecast) -> None:
    """Print the parts of a summary that are of the whole horizon, if there is one."""
    if forecast.summary is not None:
        results().print(_horizon_risk(forecast.summary))


class GrowingTable:
    """Prints the rows of a forecast as they come: a table on a terminal, else lines."""

    def __init__(self, title: str, future: Timestamps, levels: Iterable[float]) -> None:
        headings = _headings(levels)
        self._texts = future.texts
        self._table = _table(title, headings)
        console = results()
        self._live = Live(self._table, console=console) if console.is_terminal else None
        self._widths = [max(map(len, self._texts)), *(max(12, len(name)) for name in headings)]
        self._heading = f"{title}\n{self._line(['time', *headings])}"

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        else:
            typer.echo(self._heading)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, steps: ForecastSteps) -> None:
        """Print `steps`."""
        for row, numbers in enumerate(_rows(steps), steps.first):
            if self._live is not None:
                self._table.add_row(self._texts[row], *numbers)
            else:
                typer.echo(self._line([self._texts[row], *numbers]))
        if self._live is not None:
            self._live.refresh()

    def _line(self, cells: list[str]) -> str:
        first, *others = zip(cells, self._widths, strict=True)
        numbers = (f"{cell:>{width}}" for cell, width in others)
        return "  ".join([f"{first[0]:<{first[1]}}", *numbers])


def _headings(levels: Iterable[float]) -> list[str]:
    return [*FIELDS[:5], *(f"close {level * 100:g} %" for level in levels)]


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("time", no_wrap=True)
    for name in headings:
        table.add_column(name, justify="right")
    return table


def _rows(steps: ForecastSteps) -> Iterator[list[str]]:
    """Mean and quantiles of the close of each step, as they are printed."""
    for row, mean in enumerate(steps.mean):
        cuts = [values[row, CLOSE] for values in steps.quantiles.values()]
        yield [f"{number:#.6g}" for number in (*mean[:5], *cuts)]


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
