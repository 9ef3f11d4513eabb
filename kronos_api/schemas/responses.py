"""Answers as they go out. Written by hand in `writing`, so these models are the contract."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from kronos_api.errors import error_codes
from kronos_api.schemas.warnings import WarningCode


class Answer(BaseModel):
    """An answer: nothing but the fields named."""

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


class ForecastCandle(Answer):
    """The forecast of one step: the mean over the sample paths."""

    timestamp: str
    """In the style and at the offset of the request's timestamps."""
    open: float
    high: float
    low: float
    close: float
    volume: float
    amount: float


class Arrays(Answer):
    """The six fields of a forecast, one number for each step."""

    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    amount: list[float]


class Timings(Answer):
    """Where the time went, in milliseconds; `total` is that of the whole request."""

    queue: float
    inference: float
    total: float


class Warning(Answer):
    """Something to know of an answer that is given all the same."""

    code: WarningCode
    """Decide by this, not by the message. Later versions may add codes."""
    message: str


class PredictResponse(Answer):
    """The forecast of one series. All numbers are float32, written as short as they can be."""

    series_id: str | None
    prediction: list[ForecastCandle]
    quantiles: dict[str, Arrays] | None = None
    """By level, if levels were asked for."""
    samples: list[Arrays] | None = None
    """The sample paths, if they were asked for."""
    seed: int
    """The same request with this seed has the same forecast."""
    context_used: int
    """Candles of the history that the model has seen."""
    repaired: int
    """Numbers that were changed to make possible candles."""
    warnings: list[Warning]
    model_version: str
    tokenizer_version: str
    timings_ms: Timings
    demo: bool
    """Whether the bundled demonstration checkpoint answered: nothing to trade on."""


class Fault(Answer):
    """One thing that is wrong with a request."""

    item: int | None = None
    """Number of the series in a batch."""
    field: str
    index: int | None
    """Number of the element in the field."""
    constraint: str
    """What the value must be; the value is not repeated."""


class ErrorBody(Answer):
    """What went wrong."""

    code: Annotated[str, WithJsonSchema({"type": "string", "enum": error_codes()})]
    """Decide by this or by the status, not by the message. Later versions may add codes."""
    message: str
    """One or two sentences for people."""
    details: list[Fault]
    """Each rule that the request breaks; empty where none is to blame."""
    request_id: str | None
    """As in `X-Request-ID`."""


class ErrorResponse(Answer):
    """The one shape of every refusal and failure."""

    error: ErrorBody


GUARDED: Final[dict[int | str, dict[str, Any]]] = {
    403: {
        "model": ErrorResponse,
        "description": "CONTAINER_NOT_ALLOWED, HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED",
    },
    503: {"model": ErrorResponse, "description": "MODEL_NOT_READY, QUEUE_FULL, CALLER_UNKNOWN"},
}
LIMITED: Final[dict[int | str, dict[str, Any]]] = {
    **GUARDED,
    429: {"model": ErrorResponse, "description": "RATE_LIMITED"},
}
"""What a caller of a guarded route may be answered besides what it asked for."""


class Liveness(Answer):
    """The process lives."""

    status: Literal["ok"]


class Readiness(Answer):
    """Whether forecasts are taken."""

    status: Literal["ok", "loading", "stalled", "draining", "failed"]
    model_loaded: bool
    device: str | None
    device_warning: str | None
    rate_limit_store: Literal["degraded"] | None = None
    """Given while each worker counts its callers alone; forecasts are taken all the same."""


class ModelCheck(Answer):
    """The model; `version` once it is loaded."""

    status: Literal["ok", "loading", "stalled", "draining", "failed"]
    loaded: bool
    version: str | None


class MemoryCheck(Answer):
    """Memory of the process and of the machine."""

    status: Literal["ok", "degraded"]
    process_mb: float
    system_total_mb: float
    system_available_mb: float
    system_percent: float


class DiskCheck(Answer):
    """The disk that holds the root."""

    status: Literal["ok", "degraded"]
    total_gb: float
    free_gb: float
    percent: float


class QueueCheck(Answer):
    """Series that wait for the model, and those in it."""

    status: Literal["ok", "degraded"]
    waiting: int
    active: int
    limit: int


class RateLimitCheck(Answer):
    """Where forecasts are counted; degraded: this worker grants its share and counts alone."""

    status: Literal["ok", "degraded", "off"]
    store: Literal["redis", "host"] | None
    limit_per_minute: int | None
    share_per_minute: int | None
    """What this worker grants a caller while the status is degraded."""


class WhitelistCheck(Answer):
    """Who may call; degraded: DNS did not say who the last new caller was."""

    status: Literal["ok", "degraded", "off"]
    entries: int


class Checks(Answer):
    """What was looked at."""

    model: ModelCheck
    memory: MemoryCheck
    disk: DiskCheck
    queue: QueueCheck
    rate_limit_store: RateLimitCheck
    whitelist: WhitelistCheck


class Health(Answer):
    """Health in detail."""

    status: Literal["healthy", "degraded"]
    version: str
    commit: str
    """That the service was built from; "unknown" outside images and git checkouts."""
    timestamp: str
    uptime_seconds: float
    checks: Checks


class PartDescription(Answer):
    """One checkpoint that is loaded."""

    id: str
    revision: str | None
    sha256: str
    """Of the weights."""
    parameters: int


class ModelDescription(Answer):
    """What is loaded, and where."""

    model: PartDescription
    tokenizer: PartDescription
    context_length: int
    """Candles the model sees at most."""
    dtype: str
    device: str
    device_warning: str | None
    demo: bool


class Welcome(Answer):
    """The service's name, and which build of it answers."""

    message: str
    version: str
    commit: str
    """That the service was built from; "unknown" outside images and git checkouts."""
