"""Forecasts without a server: the service's engine and rules, on pandas data frames."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from kronos_api.aggregate import QUANTILE_PATHS, aggregate, default_paths
from kronos_api.checkpoints.hub import locate_both
from kronos_api.checkpoints.info import ModelInfo
from kronos_api.daemon_thread import run_in_daemon_thread
from kronos_api.engine.build import build_engine
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.forecast import Forecast
from kronos_api.frames import forecast_frame, future_index, read_candles
from kronos_api.limits import (
    LEAST_TEMPERATURE,
    MAX_HORIZON,
    MAX_SEED,
    MAX_TEMPERATURE,
    MAX_TOP_K,
    random_seed,
)
from kronos_api.summary import as_json
from kronos_api.timeseries import BarLabel, Calendars, Timestamps, continue_history
from kronos_api.timeseries.candles import MAX_VALUE
from kronos_api.violations import InvalidFields, Violation

DOWNLOAD_TIMEOUT: Final = 600.0
"""Seconds that fetching a model or a tokenizer from the hub may take."""


class Forecaster:
    """A model in memory that forecasts candles.

        forecaster = Forecaster("NeoQuasar/Kronos-small")
        forecast = forecaster.forecast(candles, horizon=24, quantile_levels=(0.1, 0.9), seed=7)

    A seeded forecast has the numbers that the service returns for the same candles and options.
    Several threads may share a forecaster; their forecasts run one after the other.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        tokenizer: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "float32",
        max_context: int | None = None,
        torch_threads: int | None = None,
    ) -> None:
        """Load a model; a hub id is fetched once.

        Args:
            model: a hub id with an optional `@revision`, the folder of a model, or a folder that
                holds `model/` and `tokenizer/`; None for the bundled demonstration, which is not
                for trading.
            tokenizer: a hub id or a folder; None for the one that a published model was trained
                with.
            device: `cpu`, `cuda`, `cuda:N`, or `auto` for the first GPU if there is one.
            dtype: `float32`, `bfloat16` or `int8`.
            max_context: candles that the model sees at once; None for its training context.
            torch_threads: PyTorch's threads in this process; None for all usable cores.

        Raises:
            StartupError: the checkpoint is missing or damaged, or the device does not exist.
        """
        self._engine = build_engine(
            *locate_both(
                None if model is None else str(model),
                None if tokenizer is None else str(tokenizer),
                timeout=DOWNLOAD_TIMEOUT,
            ),
            device=device,
            dtype=dtype,
            max_context=max_context,
            torch_threads=torch_threads,
        )
        self._calendars = Calendars()
        self._lock = threading.Lock()

    @property
    def info(self) -> ModelInfo:
        """Model, tokenizer, context, dtype and device."""
        return self._engine.info

    def forecast(
        self,
        candles: pd.DataFrame,
        horizon: int = 24,
        *,
        freq: str | None = None,
        calendar: str | None = None,
        bar_label: Literal["open", "close"] | None = None,
        quantile_levels: Sequence[float] = (),
        samples: bool = False,
        summary: bool = False,
        levels: Sequence[float] = (),
        sample_count: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 0.9,
        seed: int | None = None,
        repair: bool = True,
        repair_input: bool = False,
    ) -> pd.DataFrame:
        """Forecast the candles that follow `candles`.

        Args:
            candles: 1 to 2,048 rows, oldest first, with the columns open, high, low and close, and
                volume and amount where they are known, in lower or upper case. Their times are a
                `DatetimeIndex`, or a column `timestamps` of datetimes or ISO 8601 texts.
            horizon: candles to forecast, 1 to 512.
            freq: step such as `15min`, `1h` or `1D`; None to infer it from three or more times.
            calendar: exchange code such as `XNYS`; the forecast falls into its sessions.
            bar_label: `open` or `close`, the end of its bar that a time names; with a calendar, it
                decides where bars begin. None to infer it from the history.
            quantile_levels: quantiles over the sample paths, each between 0 and 1.
            samples: whether to return the sample paths instead of their mean.
            summary: whether to summarise the risk over the sample paths.
            levels: prices; the summary has the share of the paths that reach each.
            sample_count: sample paths; None for 1, or 30 with quantiles or a summary.
            temperature, top_k, top_p: how tokens are sampled; temperature 0 is greedy.
            seed: 0 to 2^53 - 1, repeats a forecast; None for a random one.
            repair: whether to make candles possible: high and low enclose open and close.
            repair_input: whether to move a high or low of the history that lies within open and
                close by up to 0.1 % of the price.

        Returns:
            float32 columns open, high, low, close, volume and amount, then `close-q-0.1` and so on
            for each level; a row for each candle, indexed by time. With `samples`, a row for each
            path and candle, indexed by path and time. `attrs` holds `seed`, `context_used`,
            `repaired`, `model` and `demo`. With `summary`, columns p_up, expected_return and
            volatility follow, and `attrs["summary"]` is the summary as in a response of the API.

        Raises:
            InvalidInput: naming the argument or the column, the row and the rule.
        """
        params = SamplingParams(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            sample_count=default_paths(1, QUANTILE_PATHS, bool(quantile_levels) or summary)
            if sample_count is None
            else sample_count,
            seed=random_seed() if seed is None else seed,
        )
        _check(params, horizon, quantile_levels, bar_label)
        _check_summary(params, summary, levels)
        values, history = read_candles(candles, repair_input)
        future = self._future(history, horizon, freq, calendar, bar_label)
        request = ForecastRequest.following(
            values,
            history,
            future,
            params=params,
            quantile_levels=tuple(quantile_levels),
            return_samples=samples,
            repair=repair,
            summary=summary,
            levels=tuple(levels),
        )
        forecast = self._run(request)
        frame = forecast_frame(forecast, future_index(candles, future))
        frame.attrs = {
            "seed": params.seed,
            "context_used": forecast.context_used,
            "repaired": forecast.repaired,
            "model": self.info.model.version,
            "demo": self.info.demo,
        }
        if forecast.summary is not None:
            frame.attrs["summary"] = as_json(forecast.summary)
        return frame

    def _run(self, request: ForecastRequest) -> Forecast:
        with self._lock:
            sequence = self._engine.run(request)
        assert sequence.values is not None
        return aggregate(request, sequence.values, sequence.scale, sequence.context_used)

    def _future(
        self,
        history: Timestamps,
        horizon: int,
        freq: str | None,
        calendar: str | None,
        bar_label: str | None,
    ) -> Timestamps:
        label = None if bar_label is None else BarLabel(bar_label)
        going_on = continue_history(self._calendars, history, horizon, freq, calendar, label)
        # In a thread of its own, because a notebook's thread already runs an event loop.
        return run_in_daemon_thread(lambda: asyncio.run(going_on), "calendar").result().timestamps


def _check(
    params: SamplingParams, horizon: int, levels: Sequence[float], bar_label: str | None
) -> None:
    """Raise `InvalidInput` for arguments that the service would refuse."""
    rules = [
        ("bar_label", bar_label in (None, "open", "close"), "open or close"),
        ("horizon", 1 <= horizon <= MAX_HORIZON, f"from 1 to {MAX_HORIZON}"),
        (
            "temperature",
            params.temperature == 0 or LEAST_TEMPERATURE <= params.temperature <= MAX_TEMPERATURE,
            f"0 (greedy), or from {LEAST_TEMPERATURE} to {MAX_TEMPERATURE}",
        ),
        ("top_k", 0 <= params.top_k <= MAX_TOP_K, f"from 0 (all tokens) to {MAX_TOP_K}"),
        ("top_p", 0 < params.top_p <= 1, "greater than 0 and at most 1 (all tokens)"),
        ("sample_count", params.sample_count >= 1, "at least 1"),
        ("seed", 0 <= params.seed <= MAX_SEED, "from 0 to 2^53 - 1"),
        (
            "quantile_levels",
            all(0 < level < 1 for level in levels) and len(set(levels)) == len(levels),
            "different levels between 0 and 1, such as (0.1, 0.9)",
        ),
    ]
    if levels and params.sample_count == 1:
        rules.append(("sample_count", False, "at least 2 with quantile_levels"))
    violations = [Violation(name, rule) for name, holds, rule in rules if not holds]
    if violations:
        raise InvalidFields(violations)


def _check_summary(params: SamplingParams, summary: bool, levels: Sequence[float]) -> None:
    """Raise `InvalidInput` for a summary or levels that the service would refuse."""
    rules = [
        (
            "levels",
            all(0 < level <= MAX_VALUE for level in levels),
            f"prices above 0, up to {MAX_VALUE:g}",
        ),
        ("levels", len(set(levels)) == len(levels), "given once each"),
        ("levels", summary or not levels, "absent, or summary=True beside them"),
        ("sample_count", params.sample_count > 1 or not summary, "at least 2 with summary"),
    ]
    if violations := [Violation(name, rule) for name, holds, rule in rules if not holds]:
        raise InvalidFields(violations)
