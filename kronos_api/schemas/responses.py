"""Responses with forecasts, and errors: the contract of what `serializing` writes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from kronos_api.errors import error_codes
from kronos_api.schemas.warnings import WarningCode


class ResponseModel(BaseModel):
    """A response: nothing but the fields named."""

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


class ForecastCandle(ResponseModel):
    """The forecast of one step: the mean over the sample paths."""

    timestamp: str
    """In the style and at the offset of the request's timestamps."""
    open: float
    high: float
    low: float
    close: float
    volume: float
    amount: float


class Arrays(ResponseModel):
    """The six fields of a forecast, one number for each step."""

    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    amount: list[float]


class Touch(ResponseModel):
    """The share of the sample paths that reach a level."""

    level: float
    probability: float


class Drawdown(ResponseModel):
    """Largest fall of the close below its peak, as a share of the peak, over the sample paths."""

    median: float
    p95: float
    """95 % of the paths fall by less."""


class ForecastSummary(ResponseModel):
    """Risk over the sample paths; returns are simple, since the last close of the history."""

    p_up: list[float]
    """Share of the paths whose close is above the last close, for each step."""
    expected_return: list[float]
    """Mean return, for each step."""
    volatility: list[float]
    """Standard deviation of the log return since the last close, for each step; not annualised."""
    var_95: float
    """Loss at the last step that 5 % of the paths exceed; negative where they gain."""
    es_95: float
    """Mean loss of the paths that lose at least `var_95`."""
    max_drawdown: Drawdown
    p_touch: list[Touch]
    """In the order of `levels`."""


class Timings(ResponseModel):
    """Milliseconds in the queue, in the engine, and of the whole request."""

    queue: float
    inference: float
    total: float


class Warning(ResponseModel):
    """A remark on a forecast that is returned all the same."""

    code: WarningCode
    """Decide by this, not by the message. Later versions may add codes."""
    message: str


class PredictResponse(ResponseModel):
    """The forecast of one series. Numbers are float32, in the shortest text that reads back so."""

    series_id: str | None
    prediction: list[ForecastCandle]
    quantiles: dict[str, Arrays] | None = None
    """By level, if levels were asked for."""
    samples: list[Arrays] | None = None
    """The sample paths, if they were asked for."""
    summary: ForecastSummary | None = None
    """Risk over the sample paths, if it was asked for."""
    seed: int
    """The same request with this seed has the same forecast."""
    context_used: int
    """Last candles of the history that the model saw."""
    repaired: int
    """Numbers that `repair` changed, over mean, quantiles and samples."""
    warnings: list[Warning]
    model_version: str
    tokenizer_version: str
    timings_ms: Timings
    demo: bool
    """Whether the bundled demonstration checkpoint made the forecast: not for trading."""


class FieldValues(ResponseModel):
    """The six fields at one step."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    amount: float


class CandleEvent(ForecastCandle):
    """The data of a `candle` event: one step, as soon as it is decoded.

    The numbers are those of `done` within 0.01 %, in int8 within 1 % of the standard deviation of
    the field in the history: they are decoded step by step.
    """

    step: int
    """Counted from 0."""
    quantiles: dict[str, FieldValues] | None = None
    """By level, if levels were asked for."""


class FieldError(ResponseModel):
    """One rule that the request breaks."""

    item: int | None = None
    """Number of the series in a batch."""
    field: str
    index: int | None
    """Number of the element in the field."""
    constraint: str
    """The rule; the value is not repeated."""
    candles_count: int | None = None
    """Candles of the request, where their number differs from that of the timestamps."""
    timestamps_count: int | None = None
    """Timestamps of the request, where their number differs from that of the candles."""


class ErrorBody(ResponseModel):
    """What went wrong."""

    code: Annotated[str, WithJsonSchema({"type": "string", "enum": error_codes()})]
    """Decide by this or by the status, not by the message. Later versions may add codes."""
    message: str
    """One or two sentences for people: the rule, what was found, and what changes it."""
    details: list[FieldError]
    """The rules that the request breaks, at most 20; empty where the cause is not the request."""
    request_id: str | None
    """As in `X-Request-ID`."""


class ErrorResponse(ResponseModel):
    """The shape of every error response."""

    error: ErrorBody


GUARDED: Final[dict[int | str, dict[str, Any]]] = {
    403: {
        "model": ErrorResponse,
        "description": "CONTAINER_NOT_ALLOWED, CALLER_BLOCKED, HOST_NOT_ALLOWED, "
        "ORIGIN_NOT_ALLOWED",
    },
    503: {"model": ErrorResponse, "description": "MODEL_NOT_READY, QUEUE_FULL, CALLER_UNKNOWN"},
}
LIMITED: Final[dict[int | str, dict[str, Any]]] = {
    **GUARDED,
    429: {"model": ErrorResponse, "description": "RATE_LIMITED"},
}
"""Error responses of routes that check the caller, without and with a rate limit."""
FORECAST_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {
        "model": ErrorResponse,
        "description": "INVALID_INPUT, MALFORMED_JSON, MALFORMED_BODY, WORK_TOO_LARGE",
    },
    403: {
        "model": ErrorResponse,
        "description": "CONTAINER_NOT_ALLOWED, CALLER_BLOCKED, HOST_NOT_ALLOWED, "
        "ORIGIN_NOT_ALLOWED",
    },
    408: {"model": ErrorResponse, "description": "REQUEST_TIMEOUT"},
    413: {"model": ErrorResponse, "description": "REQUEST_TOO_LARGE"},
    415: {"model": ErrorResponse, "description": "UNSUPPORTED_MEDIA_TYPE"},
    422: {"model": ErrorResponse, "description": "VALIDATION_ERROR, IDEMPOTENCY_CONFLICT"},
    429: {"model": ErrorResponse, "description": "RATE_LIMITED"},
    500: {"model": ErrorResponse, "description": "INTERNAL_ERROR"},
    503: {
        "model": ErrorResponse,
        "description": "MODEL_NOT_READY, QUEUE_FULL, SHUTTING_DOWN, CALLER_UNKNOWN",
    },
    504: {"model": ErrorResponse, "description": "PREDICTION_TIMEOUT"},
}
"""Error responses of routes that forecast."""
KEPT_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": ErrorResponse, "description": "IDEMPOTENCY_IN_PROGRESS"},
}
"""Those of routes that keep responses, besides."""
