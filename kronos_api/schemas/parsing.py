"""From the bytes of a body to series that are ready to be forecast.

Nothing here waits: the caller chooses the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from kronos_api.aggregate import QUANTILE_PATHS, default_paths
from kronos_api.engine.sampling import SamplingParams
from kronos_api.limits import random_seed
from kronos_api.schemas.candles import to_columns
from kronos_api.schemas.json_body import parse_model, utf8
from kronos_api.schemas.requests import (
    BatchItem,
    BatchRequest,
    Overrides,
    PredictRequest,
)
from kronos_api.schemas.rules import contradictions, different_lengths
from kronos_api.schemas.splitting import split_items
from kronos_api.timeseries import (
    BarLabel,
    Frequency,
    Timestamps,
    infer_frequency,
    parse_frequency,
    parse_timestamps,
)
from kronos_api.timeseries.candles import check_candles
from kronos_api.timeseries.features import Floats
from kronos_api.violations import InvalidFields, Violation, invalid_field

LONGEST_ITEM: Final = 2**21
"""Bytes of an item of a batch at most: over three times the size of the largest series."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values of the fields that a request leaves out."""

    pred_len: int
    temperature: float
    top_k: int
    top_p: float
    sample_count: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the operator sets.

    batch_setting: the setting that `batch_items` comes from. decode_steps: the decode-step budget
    of a request: sample paths times steps, summed over its series.
    """

    batch_items: int
    samples: int
    decode_steps: int
    batch_setting: str = "KRONOS_MAX_BATCH_ITEMS"


@dataclass(frozen=True, slots=True, eq=False)
class ParsedSeries:
    """One series of a request, checked, with its options.

    item: its number in a batch. candles: float32 [history, 6]. future: None where timestamps
    are to be made: `horizon` of them, `freq` apart, in the sessions of `calendar`, of bars
    labelled with `bar_label`. seeded: whether the request has a seed.
    """

    item: int | None
    series_id: str | None
    candles: Floats
    history: Timestamps
    future: Timestamps | None
    horizon: int
    freq: Frequency | None
    calendar: str | None
    bar_label: BarLabel | None
    params: SamplingParams
    seeded: bool
    quantile_levels: tuple[float, ...]
    return_samples: bool
    summary: bool
    levels: tuple[float, ...]
    repair: bool
    repaired_input: int
    """Values of the history that `repair_input` moved."""


@dataclass(frozen=True, slots=True)
class RequestParser:
    """Parses bodies by the service's defaults and limits."""

    defaults: Defaults
    limits: Limits

    def single(self, body: bytes) -> list[ParsedSeries]:
        """The one series of a body of `/v1/predict/single`; raises `KronosError`."""
        series = self._series(parse_model(PredictRequest, utf8(body)), None)
        self._check_decode_steps([series])
        return [series]

    def batch(self, body: bytes) -> list[ParsedSeries]:
        """The series of a body of `/v1/predict/batch`, in order; raises `KronosError`."""
        most, body = self.limits.batch_items, utf8(body)
        parts = split_items(body, longest=LONGEST_ITEM, most=most)
        # A body that cannot be split is rarely valid; parsed as a whole it has the right error.
        whole = parse_model(BatchRequest, body).items if parts is None else ()
        if len(parts or whole) > most:
            raise invalid_field("items", f"at most {most} long ({self.limits.batch_setting})")
        items = whole or (parse_model(BatchItem, part, n) for n, part in enumerate(parts or ()))
        series = [self._series(item, number) for number, item in enumerate(items)]
        self._check_decode_steps(series)
        return series

    def _series(self, request: PredictRequest, item: int | None) -> ParsedSeries:
        overrides = request.overrides or Overrides()
        violations = _Violations()
        violations += contradictions(request, overrides)
        checked = _candles(request, violations)
        history = violations.of(lambda: parse_timestamps(request.timestamps, "timestamps"))
        violations += different_lengths(request)
        future, freq = (None, None) if history is None else _future(request, history, violations)
        sample_count = self._sample_count(request, overrides, violations)
        if violations:
            raise numbered(InvalidFields(violations), item)
        assert checked is not None
        assert history is not None
        candles, repaired_input = checked
        return ParsedSeries(
            item=item,
            series_id=request.series_id,
            candles=candles,
            history=history,
            future=future,
            horizon=_horizon(request, overrides, self.defaults.pred_len),
            freq=freq,
            calendar=request.calendar,
            bar_label=request.bar_label,
            params=SamplingParams(
                temperature=_or(overrides.temperature, self.defaults.temperature),
                top_k=_or(overrides.top_k, self.defaults.top_k),
                top_p=_or(overrides.top_p, self.defaults.top_p),
                sample_count=sample_count,
                seed=_or(overrides.seed, random_seed()),
            ),
            seeded=overrides.seed is not None,
            quantile_levels=tuple(request.quantile_levels or ()),
            return_samples=request.return_samples,
            summary=request.summary,
            levels=tuple(request.levels or ()),
            repair=request.repair,
            repaired_input=repaired_input,
        )

    def _sample_count(
        self, request: PredictRequest, overrides: Overrides, violations: list[Violation]
    ) -> int:
        several = bool(request.quantile_levels) or request.summary
        sample_count = overrides.sample_count or default_paths(
            self.defaults.sample_count, self.limits.samples, several
        )
        if several and sample_count == 1:
            rule = (
                "at least 2 with quantile_levels or summary: one path has no distribution. Leave it"
                f" out to draw {QUANTILE_PATHS}"
            )
            violations.append(Violation("overrides.sample_count", rule))
        if sample_count > self.limits.samples:
            rule = f"at most {self.limits.samples} (KRONOS_MAX_SAMPLES)"
            violations.append(Violation("overrides.sample_count", rule))
        return sample_count

    def _check_decode_steps(self, series: Sequence[ParsedSeries]) -> None:
        steps = sum(one.params.sample_count * one.horizon for one in series)
        if steps > self.limits.decode_steps:
            rule = (
                f"at most {self.limits.decode_steps} when multiplied by the horizon and summed over"
                f" the request (KRONOS_MAX_DECODE_STEPS); found {steps}: ask for fewer samples or"
                " steps"
            )
            raise invalid_field("overrides.sample_count", rule)


class _Violations(list[Violation]):
    """Violations of several rules, collected."""

    def of(self, step: Callable[[], Result]) -> Result | None:
        """The result of `step`; None if it raises `InvalidFields`, whose violations are added."""
        try:
            return step()
        except InvalidFields as error:
            self.extend(error.violations)
            return None


def numbered(error: InvalidFields, item: int | None) -> InvalidFields:
    """`error` as that of item number `item` of a batch; None: a single series."""
    if item is None:
        return error
    return InvalidFields([replace(violation, item=item) for violation in error.violations])


def _candles(request: PredictRequest, violations: _Violations) -> tuple[Floats, int] | None:
    """Checked candles, float32 [history, 6], and the number of values repaired."""
    columns = violations.of(lambda: to_columns(request.candles))
    if columns is None:
        return None
    repair = request.repair_input
    return violations.of(lambda: check_candles(columns, repair=repair, prefix="candles."))


def _future(
    request: PredictRequest, history: Timestamps, violations: _Violations
) -> tuple[Timestamps | None, Frequency | None]:
    """The future timestamps that the request gives, or else the step between those to be made."""
    given, text = request.prediction_timestamps, request.freq
    if given is not None:
        return violations.of(lambda: _given_future(given, history)), None
    if text is None:
        return None, violations.of(lambda: infer_frequency(history))
    return None, violations.of(lambda: parse_frequency(text))


def _given_future(texts: Sequence[str], history: Timestamps) -> Timestamps:
    future = parse_timestamps(texts, "prediction_timestamps", aware=history.aware)
    if future.instants[0] <= history.instants[-1]:
        raise invalid_field("prediction_timestamps", "after the last of timestamps", 0)
    return future


def _horizon(request: PredictRequest, overrides: Overrides, default: int) -> int:
    if request.prediction_timestamps is not None:
        return len(request.prediction_timestamps)
    return request.horizon or overrides.pred_len or default


def _or(given: Result | None, default: Result) -> Result:
    return default if given is None else given
