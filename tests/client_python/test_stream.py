"""Streams of both clients: candles, the whole forecast, errors, and what is tried again."""

from __future__ import annotations

from functools import partial

import httpx
import pytest

from kronos_api_client import CandleEvent, ConnectionFailed, KronosError, PredictionTimeout
from tests.client_python.service import (
    FIELDS,
    Kind,
    Service,
    event,
    events,
    history,
    refusal,
    stream_of,
)

both = pytest.mark.parametrize("kind", ["sync", "async"])
CANDLE = dict.fromkeys(FIELDS, 1.0) | {"step": 0, "timestamp": "2025-03-03T10:00:00"}


@both
def test_candles_and_the_whole_forecast(kind: Kind) -> None:
    service = Service(respond=stream_of)
    candles, result = service.stream(
        kind, history(), horizon=3, quantile_levels=[0.1], series_id="a"
    )
    assert [candle.step for candle in candles] == [0, 1, 2]
    assert candles[0].timestamp == "2025-03-03T10:00:00"
    assert candles[2].quantiles[0.1]["close"] == candles[2].close == 101.0
    assert list(result.frame["close"]) == [candle.close for candle in candles]
    assert (result.series_id, result.request_id) == ("a", "r-2")
    assert service.requests[0].url.path == "/v1/predict/stream"
    assert service.bodies[0]["horizon"] == 3


@both
def test_refusals_before_the_first_event_are_tried_again(kind: Kind) -> None:
    full, limited = refusal(503, "QUEUE_FULL"), refusal(429, "RATE_LIMITED", retry_after="5")
    service = Service([full, httpx.ConnectError("refused"), limited], respond=stream_of)
    candles, _ = service.stream(kind, history(), horizon=2)
    assert (len(candles), len(service.requests)) == (2, 4)


@both
def test_an_error_after_the_first_event_is_typed_and_not_tried_again(kind: Kind) -> None:
    error = {"code": "PREDICTION_TIMEOUT", "message": "Late.", "details": [], "request_id": "r-3"}
    failed = events(event("candle", CANDLE), event("error", {"error": error}))
    service = Service([failed], respond=stream_of)
    with pytest.raises(PredictionTimeout, match="Late") as raised:
        service.stream(kind, history())
    assert (raised.value.status, raised.value.request_id) == (200, "r-3")
    assert len(service.requests) == 1


@both
def test_a_stream_without_its_forecast_was_cut_off(kind: Kind) -> None:
    service = Service(respond=partial(stream_of, cut=True))
    with pytest.raises(ConnectionFailed, match="cut off") as raised:
        service.stream(kind, history())
    assert raised.value.request_id == "r-2"
    assert len(service.requests) == 1


@both
@pytest.mark.parametrize(
    "text", ["<html>", "event: candle\ndata: {}\n\n", "event: done\ndata: no JSON\n\n"]
)
def test_another_service_is_an_error(kind: Kind, text: str) -> None:
    page = httpx.Response(200, text=text)
    with pytest.raises(KronosError) as raised:
        Service([page if text == "<html>" else events(text)]).stream(kind, history())
    assert raised.value.code in ("HTTP_200", "UNEXPECTED_RESPONSE")


def test_data_over_several_lines_is_one_event() -> None:
    lines = "event:candle\ndata:{\ndata:" + event("x", CANDLE).partition("data: {")[2]
    done = (
        event("unknown", {})
        + stream_of(
            httpx.Request(
                "POST",
                "http://s",
                json={"timestamps": ["2025-03-03"], "horizon": 0} | {"candles": {"close": [1.0]}},
            )
        ).text
    )
    candles, _ = Service([events(lines, done)]).stream("sync", history())
    assert candles == [CandleEvent(**CANDLE)]  # type: ignore[arg-type]
