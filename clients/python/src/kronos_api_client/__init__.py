"""Client of Kronos API: forecasts of candlestick series for pandas and polars.

with KronosClient("http://localhost:8000") as kronos:
forecast = kronos.predict(candles, horizon=24, quantile_levels=[0.1, 0.9])
"""

from kronos_api_client.async_client import AsyncKronosClient
from kronos_api_client.client import KronosClient
from kronos_api_client.errors import (
    ERRORS,
    CallerBlocked,
    CallerUnknown,
    ConnectionFailed,
    ContainerNotAllowed,
    HeadersTooLarge,
    HostNotAllowed,
    IdempotencyConflict,
    IdempotencyInProgress,
    InsufficientScope,
    InternalError,
    InvalidInput,
    KronosError,
    MalformedBody,
    MalformedJson,
    MalformedRequest,
    MethodNotAllowed,
    ModelNotReady,
    NotFound,
    OriginNotAllowed,
    PredictionTimeout,
    QueueFull,
    RateLimited,
    RequestTimeout,
    RequestTooLarge,
    ShuttingDown,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
    WorkTooLarge,
)
from kronos_api_client.forecast import Forecast, Summary, Warning
from kronos_api_client.options import Options
from kronos_api_client.plotting import plot
from kronos_api_client.service import Calendar, Models, Part, Readiness, TradingHours
from kronos_api_client.stream import AsyncCandleStream, CandleEvent, CandleStream
from kronos_api_client.version import __version__

__all__ = [
    "ERRORS",
    "AsyncCandleStream",
    "AsyncKronosClient",
    "Calendar",
    "CallerBlocked",
    "CallerUnknown",
    "CandleEvent",
    "CandleStream",
    "ConnectionFailed",
    "ContainerNotAllowed",
    "Forecast",
    "HeadersTooLarge",
    "HostNotAllowed",
    "IdempotencyConflict",
    "IdempotencyInProgress",
    "InsufficientScope",
    "InternalError",
    "InvalidInput",
    "KronosClient",
    "KronosError",
    "MalformedBody",
    "MalformedJson",
    "MalformedRequest",
    "MethodNotAllowed",
    "ModelNotReady",
    "Models",
    "NotFound",
    "Options",
    "OriginNotAllowed",
    "Part",
    "PredictionTimeout",
    "QueueFull",
    "RateLimited",
    "Readiness",
    "RequestTimeout",
    "RequestTooLarge",
    "ShuttingDown",
    "Summary",
    "TradingHours",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMediaType",
    "ValidationFailed",
    "Warning",
    "WorkTooLarge",
    "__version__",
    "plot",
]
