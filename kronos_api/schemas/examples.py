"""Requests and an answer for the documentation; the requests work when they are posted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_ROWS: Final = [
    {"open": 100.0, "high": 100.9, "low": 99.6, "close": 100.4, "volume": 1200},
    {"open": 100.4, "high": 101.2, "low": 100.1, "close": 101.0, "volume": 1350},
    {"open": 101.0, "high": 101.1, "low": 100.2, "close": 100.5, "volume": 980},
    {"open": 100.5, "high": 101.6, "low": 100.4, "close": 101.3, "volume": 1410},
]
_COLUMNS: Final = {
    name: [row[name] for row in _ROWS] for name in ("open", "high", "low", "close", "volume")
}
_HOURS: Final = [f"2025-03-03T{hour:02d}:00:00Z" for hour in range(9, 13)]

_COLUMNAR: Final = {
    "series_id": "BTC-USD",
    "candles": _COLUMNS,
    "timestamps": _HOURS,
    "horizon": 4,
    "freq": "1h",
}

SINGLE_REQUESTS: Final[Mapping[str, Any]] = {
    "columnar": {"summary": "Candles as columns, and a horizon", "value": _COLUMNAR},
    "rows": {
        "summary": "Candles as objects, and the future timestamps",
        "value": {
            "series_id": "BTC-USD",
            "candles": _ROWS,
            "timestamps": _HOURS,
            "prediction_timestamps": ["2025-03-03T13:00:00Z", "2025-03-03T14:00:00Z"],
        },
    },
    "samples": {
        "summary": "Ten sample paths of one seed, and quantiles over them",
        "value": _COLUMNAR
        | {
            "overrides": {"sample_count": 10, "temperature": 0.8, "seed": 7},
            "quantile_levels": [0.1, 0.5, 0.9],
            "return_samples": True,
        },
    },
    "summary": {
        "summary": "Risk over 30 sample paths with their tails, and the chance to reach two prices",
        "value": _COLUMNAR
        | {"overrides": {"top_p": 1.0}, "summary": True, "levels": [102.5, 100.0]},
    },
    "calendar": {
        "summary": "Only in the sessions of an exchange, in its local time",
        "value": {
            "series_id": "AAPL",
            "candles": _ROWS,
            "timestamps": [f"2025-03-07T{hour}:30" for hour in range(12, 16)],
            "horizon": 5,
            "freq": "1h",
            "calendar": "XNYS",
        },
    },
}

BATCH_REQUESTS: Final[Mapping[str, Any]] = {
    "two series": {
        "summary": "Two series that differ in form and horizon",
        "value": {
            "items": [
                _COLUMNAR,
                {
                    "series_id": "ETH-USD",
                    "candles": _ROWS,
                    "timestamps": _HOURS,
                    "horizon": 2,
                    "overrides": {"top_p": 0.95},
                },
            ]
        },
    },
}

_CANDLE: Final = {
    "timestamp": "2025-03-03T13:00:00Z",
    "open": 101.28,
    "high": 101.72,
    "low": 100.97,
    "close": 101.35,
    "volume": 1304.6,
    "amount": 132102.3,
}
_ANSWER: Final = {
    "series_id": "BTC-USD",
    "prediction": [_CANDLE],
    "seed": 5129640023714,
    "context_used": 4,
    "repaired": 0,
    "warnings": [
        {
            "code": "DEMO_MODEL",
            "message": "The bundled demonstration answered; it is not for trading.",
        }
    ],
    "model_version": "kronos-demo@0f343b093112",
    "tokenizer_version": "kronos-demo@5c1f8a6e4ce0",
    "timings_ms": {"queue": 0.21, "inference": 18.4, "total": 20.1},
    "demo": True,
}

SINGLE_ANSWER: Final[Mapping[str, Any]] = {"one step": {"value": _ANSWER}}
BATCH_ANSWER: Final[Mapping[str, Any]] = {"one series": {"value": [_ANSWER]}}


STREAM: Final = (
    "Server-sent events. `candle` has a `CandleEvent` as its data, `done` a `PredictResponse`,"
    " `error` an `ErrorResponse`. Lines that begin with a colon are heartbeats."
)
_LATE: Final = {
    "error": {
        "code": "PREDICTION_TIMEOUT",
        "message": "Inference exceeded KRONOS_INFERENCE_TIMEOUT (30 s) and was cancelled. Ask for"
        " fewer sample paths or steps.",
        "details": [],
        "request_id": "4f0c6f1a5b0e4a3c9a7d",
    }
}

CALENDARS_ANSWER: Final[Mapping[str, Any]] = {
    "one calendar": {
        "value": {
            "calendars": [
                {
                    "code": "XHKG",
                    "aliases": ["HKEX"],
                    "name": "Hong Kong Exchanges",
                    "country": "Hong Kong",
                    "time_zone": "Asia/Hong_Kong",
                    "hours": {
                        "open": "09:30",
                        "close": "16:00",
                        "opens_day_before": False,
                        "break_start": "12:00",
                        "break_end": "13:00",
                    },
                }
            ],
            "first_year": 1970,
            "last_year": 2032,
        }
    }
}


KEYED: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same request with the same key gets the first response again, "
            "where the service keeps responses (KRONOS_CACHE); another request is refused.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
        }
    ]
}
"""The OpenAPI parameter of routes that keep responses."""


def described(
    model: str, requests: Mapping[str, Any], answers: Mapping[str, Any]
) -> dict[str, Any]:
    """The OpenAPI operation's body of `model` (which the router does not see) and examples."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    body = {"application/json": {"schema": schema, "examples": requests}}
    answer = {"application/json": {"examples": answers}}
    return {
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"content": answer}},
    }


def described_stream(requests: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a stream of events, whose data are a `CandleEvent` and a `PredictResponse`."""
    operation = described("PredictRequest", requests, {})
    candle = {"step": 0, **_CANDLE}
    events = {
        "one step": {"value": _event("candle", candle) + _event("done", _ANSWER)},
        "an error after the start": {"value": _event("candle", candle) + _event("error", _LATE)},
    }
    schema = {"type": "string", "description": STREAM}
    content = {"text/event-stream": {"schema": schema, "examples": events}}
    operation["responses"]["200"]["content"] = content
    return operation


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
