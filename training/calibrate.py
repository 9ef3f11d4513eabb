"""Calibrate the temperature of a trained model on the validation part.

A model trained to predict one token errs a little at each, and every candle lacks the tokens that
`top_p` cuts off: sample paths spread too little. `python -m training.calibrate --candles A.csv
--model DIR --out DIR` tries temperatures as the service samples by default, takes the one with the
least pinball loss, and divides the heads by it, so that temperature 1 is calibrated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kronos_api.model import Kronos
from training import checkpoint
from training.candles import Split, load, split
from training.evaluate import Case, Forecaster, Service, compare

TEMPERATURES = (1.0, 1.1, 1.2, 1.3, 1.4)
REFERENCE = "historical volatility"


def loss(splits: Sequence[Split], forecaster: Forecaster, case: Case) -> float:
    """Pinball loss on the validation parts, each series relative to historical volatility."""
    ratios = []
    for part in splits:
        scores = compare(part.series, part.validation, case, {"model": forecaster})
        ratios.append(scores["model"].pinball_bp / scores[REFERENCE].pinball_bp)
        print(f"  {part.series.name}: {ratios[-1]:.3f}, coverage {scores['model'].coverage:.3f}")
    return float(np.mean(ratios))


@torch.no_grad()
def soften(model: Kronos, temperature: float) -> None:
    """Divide the logits of both heads by `temperature`, in place."""
    for parameter in model.head.parameters():
        parameter.div_(temperature)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, choose a temperature and write the checkpoint."""
    case = Case(windows=60)
    parser = argparse.ArgumentParser(prog="python -m training.calibrate", description=__doc__)
    parser.add_argument("--candles", nargs="+", required=True, help="CSV files or backtesting:NAME")
    parser.add_argument("--model", type=Path, required=True, help="folder that training wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    parser.add_argument("--temperatures", type=float, nargs="+", default=list(TEMPERATURES))
    parser.add_argument("--windows", type=int, default=case.windows, help="windows of one series")
    parser.add_argument("--history", type=int, default=case.history)
    parser.add_argument("--horizon", type=int, default=case.horizon)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    case = Case(chosen.history, chosen.horizon, chosen.windows)
    splits = [split(load(source)) for source in chosen.candles]
    service = Service(chosen.model, chosen.threads)
    losses = {}
    for temperature in chosen.temperatures:
        losses[temperature] = loss(splits, service, replace(case, temperature=temperature))
        print(f"temperature {temperature:g}: {losses[temperature]:.4f} × {REFERENCE}", flush=True)
    best = min(losses, key=losses.__getitem__)
    model, tokenizer = checkpoint.read(chosen.model)
    soften(model, best)
    checkpoint.write(model, chosen.out / "model")
    checkpoint.write(tokenizer, chosen.out / "tokenizer")
    print(f"heads divided by {best:g}")


if __name__ == "__main__":
    main()
