"""From the options of `kronos-api predict` to what the engine is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kronos_api.config import Settings
from kronos_api.errors import InvalidInput
from kronos_api.limits import LEAST_TEMPERATURE, random_seed

if TYPE_CHECKING:
    from kronos_api.cli.local import Job
    from kronos_api.engine.request import ForecastRequest
    from kronos_api.engine.sampling import SamplingParams
    from kronos_api.files import ReadOptions


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every file; None: the default of the settings, or as found out.

    reading: how the files are read. history: candles to use. levels: prices of a summary.
    """

    reading: ReadOptions
    repair_input: bool
    history: int
    horizon: int
    freq: str | None
    calendar: str | None
    bar_label: str | None
    sampling: Mapping[str, Any]
    quantile_levels: tuple[float, ...]
    summary: bool
    levels: tuple[float, ...]

    def job(self, path: Path, settings: Settings) -> Job:
        """Read the file at `path`; raises `InvalidInput`."""
        from kronos_api.cli.local import Job
        from kronos_api.cli.tables import read_history
        from kronos_api.engine.request import ForecastRequest
        from kronos_api.timeseries import BarLabel, Calendars, continue_history

        history = read_history(path, self.history, self.reading, repair=self.repair_input)
        label = BarLabel(self.bar_label) if self.bar_label else None
        continued = asyncio.run(
            continue_history(
                Calendars(), history.timestamps, self.horizon, self.freq, self.calendar, label
            )
        )
        request = ForecastRequest.following(
            history.candles,
            history.timestamps,
            continued.timestamps,
            params=self._params(settings),
            clip=settings.clip_value,
            quantile_levels=self.quantile_levels,
            summary=self.summary,
            levels=self.levels,
        )
        _check(request, settings)
        return Job(path, history, continued, request)

    def _params(self, settings: Settings) -> SamplingParams:
        """The options that are given, else the defaults of the settings."""
        from kronos_api.aggregate import default_paths
        from kronos_api.engine.sampling import SamplingParams

        several = self.summary or bool(self.quantile_levels)
        defaults = {
            "temperature": settings.default_temperature,
            "top_k": settings.default_top_k,
            "top_p": settings.default_top_p,
            "sample_count": default_paths(
                settings.default_sample_count, settings.max_samples, several
            ),
            "seed": random_seed(),
        }
        given = {name: value for name, value in self.sampling.items() if value is not None}
        return SamplingParams(**(defaults | given))


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
