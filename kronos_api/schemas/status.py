"""Responses of the routes that report on the service: health, model, name."""

from __future__ import annotations

from typing import Literal

from kronos_api.schemas.responses import ResponseModel


class Liveness(ResponseModel):
    """The process is alive."""

    status: Literal["ok"]


class Readiness(ResponseModel):
    """Whether the service takes forecasts."""

    status: Literal["ok", "loading", "stalled", "draining", "failed"]
    model_loaded: bool
    device: str | None
    device_warning: str | None
    rate_limit_store: Literal["degraded"] | None = None
    """Given while each worker uses its local fallback; the service takes forecasts."""


class ModelCheck(ResponseModel):
    """The model; `version` once it is loaded."""

    status: Literal["ok", "loading", "stalled", "draining", "failed"]
    loaded: bool
    version: str | None


class MemoryCheck(ResponseModel):
    """Memory of the process and of the machine."""

    status: Literal["ok", "degraded"]
    process_mb: float
    system_total_mb: float
    system_available_mb: float
    system_percent: float


class DiskCheck(ResponseModel):
    """The disk that holds the root."""

    status: Literal["ok", "degraded"]
    total_gb: float
    free_gb: float
    percent: float


class QueueCheck(ResponseModel):
    """Series in the queue, and in the engine."""

    status: Literal["ok", "degraded"]
    waiting: int
    active: int
    limit: int


class RateLimitCheck(ResponseModel):
    """The store of the rate limit; degraded: this worker grants its share by a local fallback."""

    status: Literal["ok", "degraded", "off"]
    store: Literal["redis", "host"] | None
    limit_per_minute: int | None
    share_per_minute: int | None
    """Forecasts a minute that this worker grants a caller while the status is degraded."""


class WhitelistCheck(ResponseModel):
    """The whitelist; degraded: DNS did not resolve the last new caller."""

    status: Literal["ok", "degraded", "off"]
    entries: int


class Checks(ResponseModel):
    """The parts that were checked."""

    model: ModelCheck
    memory: MemoryCheck
    disk: DiskCheck
    queue: QueueCheck
    rate_limit_store: RateLimitCheck
    whitelist: WhitelistCheck


class Health(ResponseModel):
    """Health in detail."""

    status: Literal["healthy", "degraded"]
    version: str
    commit: str
    """Commit of the build; "unknown" outside images and git checkouts."""
    timestamp: str
    uptime_seconds: float
    checks: Checks


class PartDescription(ResponseModel):
    """One checkpoint that is loaded."""

    id: str
    revision: str | None
    sha256: str
    """Of the weights."""
    parameters: int


class ModelDescription(ResponseModel):
    """The loaded checkpoints, and their device."""

    model: PartDescription
    tokenizer: PartDescription
    context_length: int
    """Candles that the model sees at most."""
    dtype: str
    device: str
    device_warning: str | None
    demo: bool


class Welcome(ResponseModel):
    """Name and build of the service."""

    message: str
    version: str
    commit: str
    """Commit of the build; "unknown" outside images and git checkouts."""
