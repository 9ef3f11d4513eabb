"""`kronos-api predict`: a forecast of a CSV file on this machine."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from typer import Option

from kronos_api.cli.console import log_to_stderr, note, one_line_errors, progress
from kronos_api.config import Settings, load_settings
from kronos_api.errors import InvalidInput
from kronos_api.limits import (
    LEAST_TEMPERATURE,
    MAX_HISTORY,
    MAX_HORIZON,
    MAX_SEED,
    MAX_TEMPERATURE,
    MAX_TOP_K,
)

if TYPE_CHECKING:
    from kronos_api.checkpoints.info import ModelInfo
    from kronos_api.engine.request import ForecastRequest
    from kronos_api.engine.sampling import SamplingParams
    from kronos_api.files.history import History
    from kronos_api.forecast import Forecast
    from kronos_api.timeseries import Continuation, Timestamps

PATIENCE: Final = 3600.0
"""Seconds that a forecast can take at most: there are no other callers."""


def predict(
    csv: Annotated[Path, typer.Argument(help="Candles: time, open, high, low, close, volume.")],
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
    output: Annotated[Path | None, Option(help="Write the forecast as CSV.")] = None,
    plot: Annotated[Path | None, Option(help="Write a chart, such as out.png.")] = None,
) -> None:
    """Forecast the candles of a CSV file. Defaults are those of the settings."""
    log_to_stderr()
    with one_line_errors():
        settings = load_settings(note)
        quantile_levels, prices = parse_levels(quantiles), parse_prices(levels, summary)
        with progress("reading the candles"):
            from kronos_api.cli.report import forecast_notes, show, time_notes
            from kronos_api.cli.tables import draw, read_history, write
            from kronos_api.files.options import parse_options

            options = parse_options(columns, sep, decimal, time_format)
            series = read_history(csv, history, options, repair=repair_input)
            continued = _continued(series.timestamps, horizon, freq, calendar, bar_label)
            future = continued.timestamps
        several = summary or bool(quantile_levels)
        params = _params(settings, temperature, top_k, top_p, samples, seed, several)
        request = _request(settings, series, future, params, quantile_levels, summary, prices)
        _check(request, settings)
        forecast, info = asyncio.run(_forecast(settings, request))
        typer.echo(f"{csv.name}: {series.understood}", err=True)
        show(f"{csv.name}, {info.model.id}, seed {request.params.seed}", forecast, future)
        if series.repaired:
            note(f"--repair-input moved {series.repaired} highs and lows to open and close")
        for line in [*time_notes(series.timestamps, continued), *forecast_notes(forecast, request)]:
            note(line)
        if info.demo:
            typer.echo("The bundled checkpoint is a demonstration, not for trading.", err=True)
        if output is not None:
            write(forecast, future, output)
        if plot is not None:
            draw(series, forecast, future, plot, f"{csv.name}, {info.model.id}")


def _params(
    settings: Settings,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    samples: int | None,
    seed: int | None,
    several: bool,
) -> SamplingParams:
    """The options that are given, else the defaults of the settings."""
    from kronos_api.aggregate import default_paths
    from kronos_api.engine.sampling import SamplingParams

    return SamplingParams(
        temperature=settings.default_temperature if temperature is None else temperature,
        top_k=settings.default_top_k if top_k is None else top_k,
        top_p=settings.default_top_p if top_p is None else top_p,
        sample_count=samples
        or default_paths(settings.default_sample_count, settings.max_samples, several),
        seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
    )


def _request(
    settings: Settings,
    history: History,
    future: Timestamps,
    params: SamplingParams,
    quantile_levels: tuple[float, ...],
    summary: bool,
    levels: tuple[float, ...],
) -> ForecastRequest:
    from kronos_api.engine.request import ForecastRequest
    from kronos_api.timeseries.features import time_features

    return ForecastRequest(
        candles=history.candles,
        history_time_features=time_features(history.timestamps.datetimes),
        future_time_features=time_features(future.datetimes),
        params=params,
        clip=settings.clip_value,
        quantile_levels=quantile_levels,
        summary=summary,
        levels=levels,
    )


def parse_levels(text: str) -> tuple[float, ...]:
    """Quantile levels of `0.1,0.9`, ascending; raises `InvalidInput`."""
    try:
        levels = {float(part) for part in text.split(",") if part.strip()}
    except ValueError:
        levels = {0.0}
    if not all(0 < level < 1 for level in levels):
        raise InvalidInput("--quantiles must be levels between 0 and 1, such as 0.1,0.9")
    return tuple(sorted(levels))


def parse_prices(text: str, summary: bool) -> tuple[float, ...]:
    """Prices of `105,95`, each once, for a summary; raises `InvalidInput`."""
    from kronos_api.timeseries.candles import MAX_VALUE

    try:
        prices = tuple(dict.fromkeys(float(part) for part in text.split(",") if part.strip()))
    except ValueError:
        prices = (0.0,)
    if not all(0 < price <= MAX_VALUE for price in prices):
        raise InvalidInput("--levels must be prices above 0, such as 105,95")
    if prices and not summary:
        raise InvalidInput("--levels need --summary, which has the share of paths that reach them")
    return prices


def _check(request: ForecastRequest, settings: Settings) -> None:
    """Check the rules that are not bounds of single options; raises `InvalidInput`."""
    if (request.quantile_levels or request.summary) and request.sample_count == 1:
        raise InvalidInput(
            "--samples must be 2 or more with --quantiles or --summary: one path has no"
            " distribution"
        )
    if request.sample_count > settings.max_samples:
        raise InvalidInput(f"--samples must be at most {settings.max_samples} (KRONOS_MAX_SAMPLES)")
    if request.params.top_p == 0:
        raise InvalidInput("--top-p must be greater than 0")
    if 0 < request.params.temperature < LEAST_TEMPERATURE:
        raise InvalidInput(f"--temperature must be 0 or at least {LEAST_TEMPERATURE}")


def _continued(
    history: Timestamps, horizon: int, freq: str | None, calendar: str | None, label: str | None
) -> Continuation:
    from kronos_api.timeseries import BarLabel, Calendars, continue_history

    bar_label = BarLabel(label) if label else None
    return asyncio.run(continue_history(Calendars(), history, horizon, freq, calendar, bar_label))


async def _forecast(settings: Settings, request: ForecastRequest) -> tuple[Forecast, ModelInfo]:
    """Load the checkpoint of the settings, and make one forecast."""
    from kronos_api.lifecycle import Checkpoints
    from kronos_api.predictor import AsyncPredictor

    checkpoints = Checkpoints(settings)
    predictor = AsyncPredictor(
        checkpoints.load,
        inference_timeout=PATIENCE,
        kv_cache_mb=settings.kv_cache_mb,
    )
    with progress("loading the model"):
        await asyncio.to_thread(checkpoints.find)
        await predictor.start()
        await predictor.ready()
    assert predictor.info is not None
    with progress("forecasting"):
        forecast = await predictor.predict(request, timeout=PATIENCE)
    await predictor.stop()
    return forecast, predictor.info
