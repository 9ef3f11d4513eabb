"""Measure a checkpoint on held-out time, through the service's own engine.

`python -m training.evaluate --candles A.csv --model DIR` prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kronos_api.checkpoints.hub import BUNDLED, locate
from kronos_api.engine.build import build_engine
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.predictor import AsyncPredictor
from training.candles import Series, load, split, time_features
from training.metrics import LEVELS, Doubles, Score, historical_volatility, last_close, score
from training.windows import CLIP, held_out

BATCH = 4
"""Forecasts submitted at a time; the engine decodes them together."""
TIMEOUT = 600.0
CLOSE = 3


@dataclass(frozen=True, slots=True)
class Case:
    """Lengths of history and horizon, number of windows, and how they are sampled."""

    history: int = 400
    horizon: int = 24
    windows: int = 200
    sample_count: int = 50
    temperature: float = 1.0
    top_p: float = 0.9
    seed: int = 0


Forecaster = Callable[[Sequence[Series], Case], Doubles]
"""Windows of history + horizon candles → quantiles of the return of close [N, K, 3]."""


class Service:
    """The service without HTTP: one engine behind its queue."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder = folder
        self.threads = threads

    def __call__(self, windows: Sequence[Series], case: Case) -> Doubles:
        """Forecast every window from its history."""
        return asyncio.run(self._forecast(windows, case))

    async def _forecast(self, windows: Sequence[Series], case: Case) -> Doubles:
        model = locate(str(self.folder / "model"), "model", timeout=TIMEOUT)
        tokenizer = locate(str(self.folder / "tokenizer"), "tokenizer", timeout=TIMEOUT)
        predictor = AsyncPredictor(
            lambda: build_engine(
                model,
                tokenizer,
                device="cpu",
                dtype="float32",
                max_context=None,
                window_policy="anchor",
                torch_threads=self.threads,
            ),
            max_queue=BATCH,
            inference_timeout=TIMEOUT,
            max_active=BATCH,
        )
        turns = asyncio.Semaphore(BATCH)
        bar = tqdm(total=len(windows), desc=f"top_p {case.top_p:g}", mininterval=5.0)

        async def one(window: Series, seed: int) -> Doubles:
            async with turns:
                forecast = await predictor.predict(request(window, case, seed), timeout=TIMEOUT)
            bar.update()
            quantiles = [forecast.quantiles[level][:, CLOSE] for level in LEVELS]
            return returns(window, case.history, np.stack(quantiles, axis=-1))

        await predictor.start()
        try:
            await predictor.ready()
            forecasts = [one(window, case.seed + i) for i, window in enumerate(windows)]
            return np.stack(await asyncio.gather(*forecasts))
        finally:
            bar.close()
            await predictor.stop()


def request(window: Series, case: Case, seed: int) -> ForecastRequest:
    """The request for the rows of `window` that follow its history."""
    features = time_features(window.timestamps)
    return ForecastRequest(
        candles=window.candles[: case.history],
        history_time_features=features[: case.history],
        future_time_features=features[case.history :],
        params=SamplingParams(
            temperature=case.temperature,
            top_p=case.top_p,
            sample_count=case.sample_count,
            seed=seed,
        ),
        clip=CLIP,
        quantile_levels=LEVELS,
    )


def returns(window: Series, history: int, closes: np.ndarray) -> Doubles:
    """Logarithm of `closes` over the last close of the history; a close below zero is -infinity."""
    ratio = np.maximum(closes.astype(np.float64), 0) / float(window.candles[history - 1, CLOSE])
    with np.errstate(divide="ignore"):
        logarithm: Doubles = np.log(ratio)
    return logarithm


def compare(
    series: Series, targets: tuple[int, int], case: Case, forecasters: dict[str, Forecaster]
) -> dict[str, Score]:
    """Score every forecaster, and the two references, on windows with targets in [first, last)."""
    windows = [
        window
        for _, window in held_out(
            series, targets, history=case.history, future=case.horizon, most=case.windows
        )
    ]
    if not windows:
        raise ValueError(f"{series.name}: too short for one window")
    closes = np.stack([w.candles[:, CLOSE] for w in windows]).astype(np.float64)
    truth = np.log(closes[:, case.history :] / closes[:, case.history - 1, None])
    scores = {name: score(truth, one(windows, case)) for name, one in forecasters.items()}
    scores["last close"] = score(truth, last_close(len(windows), case.horizon))
    volatility = historical_volatility(closes[:, : case.history], case.horizon)
    scores["historical volatility"] = score(truth, volatility)
    return scores


def table(results: dict[str, dict[str, Score]]) -> str:
    """Lay the scores out as Markdown."""
    lines = [
        "| data | forecaster | pinball, bp | coverage | MAE, bp | last: pinball, bp | coverage |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, scores in results.items():
        for name, s in scores.items():
            lines.append(
                f"| {data} | {name} | {s.pinball_bp:.2f} | {s.coverage:.3f} | {s.mae_bp:.1f} "
                f"| {s.pinball_last_bp:.2f} | {s.coverage_last:.3f} |"
            )
    return "\n".join(lines)


def with_top_p(forecaster: Forecaster, top_p: float) -> Forecaster:
    """Return `forecaster` with its sampling cut at `top_p`."""

    def forecast(windows: Sequence[Series], case: Case) -> Doubles:
        return forecaster(windows, replace(case, top_p=top_p))

    return forecast


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print and write."""
    case = Case()
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--candles", nargs="+", required=True, help="CSV files or backtesting:NAME")
    parser.add_argument("--model", type=Path, default=BUNDLED, help="folder of model and tokenizer")
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--windows", type=int, default=case.windows, help="windows of one series")
    parser.add_argument("--sample-count", "--paths", type=int, default=case.sample_count)
    parser.add_argument("--history", type=int, default=case.history)
    parser.add_argument("--horizon", type=int, default=case.horizon)
    parser.add_argument("--temperature", type=float, default=case.temperature)
    parser.add_argument("--top-p", type=float, nargs="+", default=[0.9, 1.0])
    parser.add_argument("--seed", type=int, default=case.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    case = Case(
        history=chosen.history,
        horizon=chosen.horizon,
        windows=chosen.windows,
        sample_count=chosen.sample_count,
        temperature=chosen.temperature,
        seed=chosen.seed,
    )
    started = time.monotonic()
    service = Service(chosen.model, chosen.threads)
    forecasters = {f"model, top_p {p:g}": with_top_p(service, p) for p in chosen.top_p}
    results = {}
    for source in chosen.candles:
        part = split(load(source))
        targets = part.test if chosen.part == "test" else part.validation
        results[part.series.name] = compare(part.series, targets, case, forecasters)
    print(table(results))
    print(f"{time.monotonic() - started:.0f} s")
    if chosen.out:
        values = {d: {n: s.to_json() for n, s in scores.items()} for d, scores in results.items()}
        chosen.out.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
