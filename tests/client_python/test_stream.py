"""Streams of both clients: candles, the whole forecast, errors, and what is tried again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from functools import partial

import httpx
import pytest

from kronos_api_client import (
    CandleEvent,
    ConnectionFailed,
    KronosError,
    PredictionTimeout,
    Unauthenticated,
)
from tests.client_python.service import (
    FIELDS,
    Kind,
    Service,
    event,
    events,
    history,
    long_history,
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


class Whole(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is read from its connection."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self.content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in `size` bytes at a time, whose connection breaks at its end."""

    def __init__(self, content: bytes, size: int) -> None:
        self.parts = [content[at : at + size] for at in range(0, len(content), size)]

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


@both
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_text_with_other_line_separators_arrives_whole(kind: Kind, size: int) -> None:
    series_id = "Zürich\u2028\u0085"

    def respond(request: httpx.Request) -> httpx.Response:
        whole = json.loads(stream_of(request).text.rpartition("data: ")[2])
        data = json.dumps(whole | {"series_id": series_id}, ensure_ascii=False)
        text = event("candle", CANDLE) + f"event: done\r\ndata: {data}\r\n\r\n"
        headers = {"Content-Type": "text/event-stream"}
        return httpx.Response(200, stream=Chunks(text.encode(), size), headers=headers)

    candles, result = Service(respond=respond).stream(kind, history(), horizon=1)
    assert len(candles) == 1
    assert result.response["series_id"] == series_id


@both
def test_a_refusal_in_the_form_of_events_is_read_as_a_refusal(kind: Kind) -> None:
    refused = refusal(401, "UNAUTHENTICATED")
    content = refused.content
    headers = {"Content-Type": "text/event-stream"}
    service = Service([httpx.Response(401, stream=Whole(content), headers=headers)])
    with pytest.raises(Unauthenticated):
        service.stream(kind, history())


@pytest.mark.parametrize("call", ["forecast", "predict_many"])
@pytest.mark.parametrize("key", ["", "two words", "x" * 129, "é"])
def test_a_key_that_the_service_refuses_is_not_sent(call: str, key: str) -> None:
    service = Service()
    with pytest.raises(ValueError, match="idempotency_key must be 1 to 128"):
        service.call("sync", call, long_history(["a"]), idempotency_key=key)
    assert service.requests == []


@both
def test_a_stream_takes_no_key(kind: Kind) -> None:
    service = Service(respond=stream_of)
    with pytest.raises(TypeError, match="stream has no idempotency_key"):
        service.stream(kind, history(), idempotency_key="one")
    assert service.requests == []


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
