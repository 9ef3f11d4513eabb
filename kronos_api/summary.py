"""Risk over the sample paths of a forecast: probabilities, returns, losses, drawdowns, levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from kronos_api.engine.sampling import SamplingParams
from kronos_api.forecast import Summary
from kronos_api.timeseries.features import FIELDS, Floats

TAIL: Final = 0.05
"""Share of the paths that lose more than `var_95`."""
LARGEST: Final = float(np.finfo(np.float32).max)
HIGH, LOW, CLOSE = (FIELDS.index(name) for name in ("high", "low", "close"))


def summarise(paths: Floats, last_close: float, levels: Sequence[float]) -> Summary:
    """The summary of repaired sample `paths`, float32 [sample_count ≥ 2, horizon, 6].

    All prices are above 0. `docs/api.md` has the formulas. Computed in float64, returned as
    float32; a return beyond its range is its largest number.
    """
    growth = paths[..., CLOSE].astype(np.float64) / last_close
    returns = growth - 1
    losses = -returns[:, -1]
    var_95 = np.quantile(losses, 1 - TAIL)
    drawdowns = _max_drawdowns(growth)
    prices = np.asarray(levels, np.float32)
    return Summary(
        p_up=_float32((returns > 0).mean(axis=0)),
        expected_return=_float32(returns.mean(axis=0)),
        volatility=_float32(np.log(growth).std(axis=0, ddof=1)),
        var_95=np.float32(np.clip(var_95, -LARGEST, LARGEST)),
        es_95=np.float32(np.clip(losses[losses >= var_95].mean(), -LARGEST, LARGEST)),
        drawdown_median=np.float32(np.median(drawdowns)),
        drawdown_p95=np.float32(np.quantile(drawdowns, 1 - TAIL)),
        levels=prices,
        p_touch=_touched(paths, np.float32(last_close), prices),
    )


def tails_cut(params: SamplingParams) -> str | None:
    """How `params` narrow the distribution that a summary describes; None: they do not."""
    if params.greedy:
        return "All sample paths are the same, since sampling is greedy: the summary has no risk."
    settings = [f"top_p {params.top_p:g}"] if params.top_p < 1 else []
    settings += [f"top_k {params.top_k}"] if params.top_k else []
    settings += [f"temperature {params.temperature:g}"] if params.temperature < 1 else []
    if not settings:
        return None
    return (
        f"Sampling with {', '.join(settings)} leaves out unlikely moves: volatility, es_95,"
        " max_drawdown and p_touch are underestimated."
    )


def step_columns(summary: Summary | None) -> dict[str, Floats]:
    """The parts of a summary that have a number for each step, by name; none without a summary."""
    if summary is None:
        return {}
    names = ("p_up", "expected_return", "volatility")
    return {name: getattr(summary, name) for name in names}


def as_dict(summary: Summary) -> dict[str, Any]:
    """A summary as responses have it; arrays and numbers are float32 of NumPy."""
    return {
        **step_columns(summary),
        "var_95": summary.var_95,
        "es_95": summary.es_95,
        "max_drawdown": {"median": summary.drawdown_median, "p95": summary.drawdown_p95},
        "p_touch": [
            {"level": level, "probability": share}
            for level, share in zip(summary.levels, summary.p_touch, strict=True)
        ],
    }


def as_json(summary: Summary) -> dict[str, Any]:
    """A summary in types of JSON, with the numbers that a response has."""
    content: dict[str, Any] = orjson.loads(
        orjson.dumps(as_dict(summary), option=orjson.OPT_SERIALIZE_NUMPY)
    )
    return content


def _max_drawdowns(growth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest fall of each path below its peak so far, as a share of it; [sample_count].

    The last close of the history, 1 in `growth` [sample_count, horizon], is the first peak.
    """
    peaks = np.maximum(np.maximum.accumulate(growth, axis=1), 1)
    deepest: NDArray[np.float64] = (1 - growth / peaks).max(axis=1)
    return deepest


def _touched(paths: Floats, last_close: np.float32, levels: Floats) -> Floats:
    """Share of the paths that reach each level from the last close, gaps included; [levels]."""
    highest = paths[..., HIGH].max(axis=1)[:, None]
    lowest = paths[..., LOW].min(axis=1)[:, None]
    reached = np.where(levels >= last_close, highest >= levels, lowest <= levels)
    return _float32((reached | (levels == last_close)).mean(axis=0))


def _float32(values: NDArray[np.float64]) -> Floats:
    return np.clip(values, -LARGEST, LARGEST).astype(np.float32)
