"""Rules that hold between the fields of a request."""

from __future__ import annotations

from kronos_api.limits import LEAST_TEMPERATURE
from kronos_api.schemas.requests import Columns, Overrides, PredictRequest
from kronos_api.violations import Violation


def contradictions(request: PredictRequest, overrides: Overrides) -> list[Violation]:
    """Options that contradict each other."""
    violations = []
    given = request.prediction_timestamps
    if given is not None:
        names = ("horizon", "freq", "calendar")
        rule = "absent where prediction_timestamps are given"
        violations += [
            Violation(name, rule) for name in names if getattr(request, name) is not None
        ]
    steps = request.horizon if given is None else len(given)
    if steps is not None and overrides.pred_len not in (None, steps):
        rule = f"the number of future timestamps ({steps})"
        violations.append(Violation("overrides.pred_len", rule))
    if 0 < (overrides.temperature or 0) < LEAST_TEMPERATURE:
        violations.append(Violation("overrides.temperature", f"0 or at least {LEAST_TEMPERATURE}"))
    for name in ("quantile_levels", "levels"):
        levels = getattr(request, name) or []
        repeated = [index for index, level in enumerate(levels) if level in levels[:index]]
        violations += [Violation(name, "given once", index) for index in repeated]
    if request.levels and not request.summary:
        violations.append(Violation("levels", 'absent, or "summary": true beside them'))
    return violations


def different_lengths(request: PredictRequest) -> list[Violation]:
    """Candles and timestamps must be equally many."""
    candles = request.candles
    rows = len(candles.open) if isinstance(candles, Columns) else len(candles)
    found = len(request.timestamps)
    if rows == found:
        return []
    counts = {"candles_count": rows, "timestamps_count": found}
    return [Violation("timestamps", f"as long as candles ({rows}); found {found}", counts=counts)]
