"""`kronos-api predict`: forecasts of files on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from kronos_api.cli.console import log_to_stderr, note, one_line_errors, progress
from kronos_api.cli.outputs import Format, Target, plan
from kronos_api.cli.predict_request import Asked, parse_levels, parse_prices
from kronos_api.config import Settings, load_settings
from kronos_api.errors import InvalidInput
from kronos_api.limits import (
    MAX_HISTORY,
    MAX_HORIZON,
    MAX_SEED,
    MAX_TEMPERATURE,
    MAX_TOP_K,
)

if TYPE_CHECKING:
    from kronos_api.checkpoints.info import ModelInfo
    from kronos_api.cli.local import Job
    from kronos_api.forecast import Forecast


def predict(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="CSV...", help="Candles: time, open, high, low, close, volume."),
    ],
    horizon: Annotated[int, Option(min=1, max=MAX_HORIZON, help="Candles to forecast.")] = 24,
    history: Annotated[
        int, Option(min=1, max=MAX_HISTORY, help="Candles to use, the last ones.")
    ] = 400,
    freq: Annotated[str | None, Option(help="Step: 15min, 1D, ...; else inferred.")] = None,
    calendar: Annotated[str | None, Option(help="Exchange to keep to, such as XNYS.")] = None,
    bar_label: Annotated[
        Literal["open", "close"] | None,
        Option(help="End of its bar that a time names; else found out, or open."),
    ] = None,
    samples: Annotated[int | None, Option(min=1, help="Sample paths.")] = None,
    temperature: Annotated[
        float | None, Option(min=0, max=MAX_TEMPERATURE, help="0 is greedy.")
    ] = None,
    top_k: Annotated[int | None, Option(min=0, max=MAX_TOP_K, help="0 keeps all.")] = None,
    top_p: Annotated[float | None, Option(min=0, max=1, help="1 keeps all.")] = None,
    seed: Annotated[int | None, Option(min=0, max=MAX_SEED, help="Repeats a forecast.")] = None,
    quantiles: Annotated[str, Option(help="Levels, such as 0.1,0.9.")] = "",
    summary: Annotated[
        bool, Option("--summary", help="Risk: p_up, returns, losses, drawdowns.")
    ] = False,
    levels: Annotated[str, Option(help="Prices that paths may reach, such as 105,95.")] = "",
    columns: Annotated[str, Option(help="Which is which: close=Last,time=When.")] = "",
    sep: Annotated[str | None, Option(help="Separator of the file; else found out.")] = None,
    decimal: Annotated[str | None, Option(help="Decimal sign, . or , ; else found out.")] = None,
    time_format: Annotated[str | None, Option(help="As strptime has it: %d/%m/%Y.")] = None,
    repair_input: Annotated[
        bool, Option("--repair-input", help="Mend highs and lows that are off by a tick.")
    ] = False,
    stream: Annotated[bool, Option("--stream", help="Print each row as it is decoded.")] = False,
    output: Annotated[Path | None, Option(help="Write it: .csv, .json, .parquet.")] = None,
    output_dir: Annotated[Path | None, Option(help="Folder of the forecasts of the files.")] = None,
    output_format: Annotated[Format | None, Option(help="Format, whatever the suffix.")] = None,
    plot: Annotated[Path | None, Option(help="Write a chart, such as out.png.")] = None,
) -> None:
    """Forecast the candles of files. Defaults are those of the settings."""
    log_to_stderr()
    with one_line_errors():
        settings = load_settings(note)
        if plot is not None and len(files) > 1:
            raise InvalidInput("--plot is of one forecast: leave it out, or give one file")
        quantile_levels, prices = parse_levels(quantiles), parse_prices(levels, summary)
        targets = plan(files, output, output_dir, output_format)
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        with progress("reading the candles"):
            from kronos_api.files.options import parse_options

            asked = Asked(
                reading=parse_options(columns, sep, decimal, time_format),
                repair_input=repair_input,
                history=history,
                horizon=horizon,
                freq=freq,
                calendar=calendar,
                bar_label=bar_label,
                sampling=sampling | {"sample_count": samples},
                quantile_levels=quantile_levels,
                summary=summary,
                levels=prices,
            )
            jobs = [asked.job(path, settings) for path in files]
        asyncio.run(_run(settings, jobs, targets, stream, plot))


async def _run(
    settings: Settings,
    jobs: list[Job],
    targets: list[Target | None],
    stream: bool,
    plot: Path | None,
) -> None:
    """Forecast all jobs. Those of several files that are written are not printed as well."""
    from kronos_api.cli.local import local_model

    async with local_model(settings) as model:
        if len(jobs) > 1 and targets[0] is not None and not stream:
            forecasts = await model.forecast_all(jobs)
            for job, forecast, target in zip(jobs, forecasts, targets, strict=True):
                _report(job, forecast, model.info, target, printed=True)
        else:
            for job, target in zip(jobs, targets, strict=True):
                forecast = await (model.stream(job) if stream else model.forecast(job))
                _report(job, forecast, model.info, target, printed=stream, plot=plot)
    if model.info.demo:
        typer.echo("The bundled checkpoint is a demonstration, not for trading.", err=True)


def _report(
    job: Job,
    forecast: Forecast,
    info: ModelInfo,
    target: Target | None,
    *,
    printed: bool,
    plot: Path | None = None,
) -> None:
    """Print what is to be known of one forecast, and its table unless it is `printed`; write it."""
    from kronos_api.cli.report import forecast_notes, show, show_risk, time_notes
    from kronos_api.cli.tables import draw, to_table

    history, future = job.history, job.continued.timestamps
    typer.echo(f"{job.path.name}: {history.understood}", err=True)
    if printed:
        show_risk(forecast)
    else:
        show(job.title(info), forecast, future)
    if history.repaired:
        note(f"--repair-input moved {history.repaired} highs and lows to open and close")
    times = time_notes(history.timestamps, job.continued)
    for line in [*times, *forecast_notes(forecast, job.request)]:
        note(line)
    if target is not None:
        target.write(to_table(forecast, future))
        if printed:
            typer.echo(f"{job.path.name}: written to {target.path}", err=True)
    if plot is not None:
        draw(history, forecast, future, plot, f"{job.path.name}, {info.model.id}")
