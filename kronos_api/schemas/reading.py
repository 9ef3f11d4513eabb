"""From the bytes of a body to series that are ready to be forecast.

Everything here is plain work without waiting: the caller decides in which thread it is done.
"""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from kronos_api.aggregate import QUANTILE_PATHS, default_paths
from kronos_api.engine.sampling import SamplingParams
from kronos_api.errors import KronosError, MalformedJson
from kronos_api.schemas.candles import read_candles
from kronos_api.schemas.duplicates import find_duplicate
from kronos_api.schemas.faults import told
from kronos_api.schemas.requests import (
    MAX_SEED,
    BatchItem,
    BatchRequest,
    Overrides,
    PredictRequest,
)
from kronos_api.schemas.splitting import split_items
from kronos_api.timeseries import (
    BarLabel,
    Frequency,
    Timestamps,
    infer_frequency,
    parse_frequency,
    parse_timestamps,
)
from kronos_api.timeseries.features import Floats
from kronos_api.violations import InvalidFields, Violation, invalid_field

MOST_VALUES: Final = 32_768
"""Values that are parsed at once: over twice what a series can hold.

They are counted before, so that no body takes long to refuse."""
LONGEST_ITEM: Final = 2**21
"""Bytes that an item of a batch may take: over three times what a series fills."""
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Wire = TypeVar("Wire", bound=BaseModel)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request need not say."""

    pred_len: int
    temperature: float
    top_k: int
    top_p: float
    sample_count: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the operator sets; `work` is sample paths times steps, over a request."""

    batch_items: int
    samples: int
    work: int


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One series with everything that is asked of it, checked.

    item: its number in a batch. candles: float32 [history, 6]. `future` is None where
    timestamps are to be made: `horizon` of them, `freq` apart, in the sessions of `calendar`, of
    bars labelled with `bar_label`.
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
    quantile_levels: tuple[float, ...]
    return_samples: bool
    repair: bool
    mended: int
    """Values of the history that `repair_input` moved."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads bodies by the service's defaults and limits."""

    defaults: Defaults
    limits: Limits

    def single(self, body: bytes) -> list[Series]:
        """The one series of a body of `/v1/predict/single`; raises `KronosError`."""
        series = self._series(_parse(PredictRequest, _text(body)), None)
        self._check_work([series])
        return [series]

    def batch(self, body: bytes) -> list[Series]:
        """The series of a body of `/v1/predict/batch`, in order; raises `KronosError`."""
        most, body = self.limits.batch_items, _text(body)
        parts = split_items(body, longest=LONGEST_ITEM, most=most)
        # A body that cannot be split is hardly ever right; as a whole it tells what is wrong.
        whole = _parse(BatchRequest, body).items if parts is None else ()
        if len(parts or whole) > most:
            raise invalid_field("items", f"at most {most} long")
        items = whole or (_parse(BatchItem, part, n) for n, part in enumerate(parts or ()))
        series = [self._series(item, number) for number, item in enumerate(items)]
        self._check_work(series)
        return series

    def _series(self, request: PredictRequest, item: int | None) -> Series:
        overrides = request.overrides or Overrides()
        faults = _Faults()
        faults += _misfits(request, overrides)
        read = faults.of(lambda: read_candles(request.candles, request.repair_input))
        candles, mended = (None, 0) if read is None else read
        history = faults.of(lambda: parse_timestamps(request.timestamps, "timestamps"))
        if candles is not None and len(request.timestamps) != len(candles):
            rule = f"as long as candles ({len(candles)})"
            faults.append(Violation("timestamps", rule))
        future = None
        if request.prediction_timestamps is not None and history is not None:
            future = faults.of(lambda: _future(request.prediction_timestamps or (), history))
        freq = None
        if request.prediction_timestamps is None and history is not None:
            freq = faults.of(
                lambda: (
                    infer_frequency(history)
                    if request.freq is None
                    else parse_frequency(request.freq)
                )
            )
        sample_count = self._sample_count(request, overrides, faults)
        if faults:
            raise numbered(InvalidFields(faults), item)
        assert candles is not None
        assert history is not None
        return Series(
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
                seed=_or(overrides.seed, secrets.randbelow(MAX_SEED + 1)),
            ),
            quantile_levels=tuple(request.quantile_levels or ()),
            return_samples=request.return_samples,
            repair=request.repair,
            mended=mended,
        )

    def _sample_count(
        self, request: PredictRequest, overrides: Overrides, faults: list[Violation]
    ) -> int:
        quantiles = bool(request.quantile_levels)
        sample_count = overrides.sample_count or default_paths(
            self.defaults.sample_count, self.limits.samples, quantiles
        )
        if quantiles and sample_count == 1:
            rule = (
                "at least 2 where quantile_levels are given: all quantiles of one path are the"
                f" same. Leave it out to draw {QUANTILE_PATHS}"
            )
            faults.append(Violation("overrides.sample_count", rule))
        if sample_count > self.limits.samples:
            rule = f"at most {self.limits.samples}"
            faults.append(Violation("overrides.sample_count", rule))
        return sample_count

    def _check_work(self, series: Sequence[Series]) -> None:
        work = sum(one.params.sample_count * one.horizon for one in series)
        if work > self.limits.work:
            rule = f"at most {self.limits.work} when multiplied by the horizon and summed"
            raise invalid_field("overrides.sample_count", f"{rule} over the request")


class _Faults(list[Violation]):
    """Breaches of several rules, collected."""

    def of(self, step: Callable[[], Result]) -> Result | None:
        """What `step` gives; None, and its violations here, if it refuses."""
        try:
            return step()
        except InvalidFields as error:
            self.extend(error.violations)
            return None


def numbered(error: InvalidFields, item: int | None) -> InvalidFields:
    """`error` as that of the batch's item number `item`; None: there is no batch."""
    return InvalidFields([replace(violation, item=item) for violation in error.violations])


def _text(body: bytes) -> bytes:
    """`body` without a byte order mark; raises `MalformedJson` if it looks like UTF-16 or -32."""
    if body.startswith(_UTF16) or b"\0" in body[:4]:
        violation = Violation(
            "body", "UTF-8, with or without a byte order mark; it looks like UTF-16"
        )
        raise MalformedJson(f"{violation}.", details=[violation.detail()])
    return body.removeprefix(codecs.BOM_UTF8)


def _parse(model: type[Wire], body: bytes, item: int | None = None) -> Wire:
    if body.count(b",") >= MOST_VALUES:
        raise numbered(invalid_field("body", f"of at most {MOST_VALUES} values"), item)
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        refused: KronosError = told(error, item)
    else:
        duplicate = find_duplicate(parsed, body)
        if duplicate is None:
            return parsed
        refused = InvalidFields([duplicate if item is None else replace(duplicate, item=item)])
    # Raised out here, so that the input does not hang on it.
    raise refused


def _misfits(request: PredictRequest, overrides: Overrides) -> list[Violation]:
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
    if 0 < (overrides.temperature or 0) < 0.001:
        violations.append(Violation("overrides.temperature", "0 or at least 0.001"))
    levels = request.quantile_levels or []
    repeated = [index for index, level in enumerate(levels) if level in levels[:index]]
    violations += [Violation("quantile_levels", "given once", index) for index in repeated]
    return violations


def _future(texts: Sequence[str], history: Timestamps) -> Timestamps:
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
