"""What top_p does to a summary: the same histories and seeds, with and without their tails.

Each history of the file is forecast with top_p 1 and with `--top-p`; the figures are means over the
histories. The levels of p_touch lie `LEVEL` deviations of the log return, as top_p 1 has it, above
and below the last close.

    python -m benchmarks.tails examples/candles.csv
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.report import parser, print_row, write_json
from kronos_api.forecaster import Forecaster

HISTORY: Final = 256
LEVEL: Final = 2.0
"""Distance of a level from the last close, in deviations at the last step."""
FIGURES: Final = ("volatility", "var_95", "es_95", "drawdown p95", "p_touch below", "p_touch above")
WIDTHS: Final = (16, 10, 10, 8)


def figures(summary: dict[str, Any]) -> list[float]:
    """Those of `FIGURES` in a summary with two levels."""
    below, above = (touch["probability"] for touch in summary["p_touch"])
    drawdown = summary["max_drawdown"]["p95"]
    volatility = summary["volatility"][-1]
    return [volatility, summary["var_95"], summary["es_95"], drawdown, below, above]


def measure(
    forecaster: Forecaster, candles: pd.DataFrame, top_p: float, options: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """The figures of one history with top_p 1 and with `top_p`."""
    last = float(candles["close"].iloc[-1])

    def summary(top_p: float, levels: Sequence[float]) -> dict[str, Any]:
        frame = forecaster.forecast(
            candles, summary=True, levels=levels, top_p=top_p, seed=1, **options
        )
        found: dict[str, Any] = frame.attrs["summary"]
        return found

    distance = LEVEL * summary(1.0, ())["volatility"][-1]
    levels = [last * math.exp(-distance), last * math.exp(distance)]
    return figures(summary(1.0, levels)), figures(summary(top_p, levels))


def _options() -> Namespace:
    arguments = parser("tails", __doc__)
    arguments.add_argument("csv", type=Path)
    arguments.add_argument("--top-p", type=float, default=0.9)
    arguments.add_argument("--paths", type=int, default=64)
    arguments.add_argument("--horizon", type=int, default=24)
    arguments.add_argument("--step", type=int, default=16, help="candles between histories")
    return arguments.parse_args()


def main() -> None:
    """Print and write the figures."""
    chosen = _options()
    candles = pd.read_csv(chosen.csv, index_col="timestamps", parse_dates=["timestamps"])
    forecaster = Forecaster(torch_threads=chosen.threads)
    options = {"sample_count": chosen.paths, "horizon": chosen.horizon}
    pairs = [
        measure(forecaster, candles.iloc[end - HISTORY : end], chosen.top_p, options)
        for end in range(HISTORY, len(candles) + 1, chosen.step)
    ]
    whole, cut = np.mean([pair[0] for pair in pairs], 0), np.mean([pair[1] for pair in pairs], 0)
    print_row(["mean of " + str(len(pairs)), "top_p 1", f"top_p {chosen.top_p:g}", "ratio"], WIDTHS)
    for name, one, other in zip(FIGURES, whole, cut, strict=True):
        print_row([name, f"{one:.3%}", f"{other:.3%}", f"{other / one:.2f}"], WIDTHS)
    rows = zip(FIGURES, whole.tolist(), cut.tolist(), strict=True)
    found = {name: {"whole": one, "cut": other} for name, one, other in rows}
    write_json(chosen.json, "tails", {"top_p": chosen.top_p, "histories": len(pairs)} | found)


if __name__ == "__main__":
    main()
