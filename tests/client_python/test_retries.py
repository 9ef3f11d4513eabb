"""Which refusals and failures are tried again, when, and for how long; of both clients."""

from __future__ import annotations

import httpx
import pytest

from kronos_api_client import (
    ConnectionFailed,
    InvalidInput,
    KronosError,
    PredictionTimeout,
    QueueFull,
    RateLimited,
)
from kronos_api_client.exchange import JITTER
from tests.client_python.service import Kind, Service, history, refusal

both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
@pytest.mark.parametrize(
    ("status", "code"), [(409, "IDEMPOTENCY_IN_PROGRESS"), (429, "RATE_LIMITED"), (503, "NEW_CODE")]
)
def test_waits_as_long_as_retry_after_says(kind: Kind, status: int, code: str) -> None:
    service = Service([refusal(status, code, retry_after="7")] * 2)
    assert len(service.call(kind, "predict", history(), horizon=3)) == 3
    assert len(service.requests) == 3
    assert all(7 <= slept <= 7 * (1 + JITTER) for slept in service.clock.slept)


@both
def test_waits_longer_each_time_without_retry_after(kind: Kind) -> None:
    service = Service([refusal(503, "SHUTTING_DOWN")] * 6)
    service.call(kind, "predict", history())
    for slept, least in zip(service.clock.slept, (0.5, 1, 2, 4, 8, 8), strict=True):
        assert least <= slept <= least * (1 + JITTER)


@both
def test_date_in_retry_after_counts_as_none(kind: Kind) -> None:
    service = Service([refusal(503, "QUEUE_FULL", retry_after="Wed, 21 Oct 2026 07:28:00 GMT")])
    service.call(kind, "predict", history())
    assert service.clock.slept[0] < 1


@both
def test_retry_after_of_zero_waits_nevertheless(kind: Kind) -> None:
    service = Service([refusal(503, "QUEUE_FULL", retry_after="0")] * 3)
    service.call(kind, "predict", history())
    assert all(slept >= 0.5 for slept in service.clock.slept)


@both
def test_raises_at_once_where_the_wait_ends_too_late(kind: Kind) -> None:
    service = Service([refusal(429, "RATE_LIMITED", retry_after="61")])
    with pytest.raises(RateLimited) as raised:
        service.call(kind, "predict", history(), max_wait=60)
    assert raised.value.retry_after == 61
    assert service.clock.slept == []


@both
def test_all_waits_together_stay_within_max_wait(kind: Kind) -> None:
    service = Service([refusal(503, "QUEUE_FULL", retry_after="20")] * 9)
    with pytest.raises(QueueFull):
        service.call(kind, "predict", history(), max_wait=60)
    assert len(service.requests) == 3
    assert sum(service.clock.slept) <= 60


@both
def test_max_wait_of_zero_never_retries(kind: Kind) -> None:
    service = Service([refusal(503, "QUEUE_FULL", retry_after="1")])
    with pytest.raises(QueueFull):
        service.call(kind, "predict", history(), max_wait=0)
    assert len(service.requests) == 1


@both
@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "INVALID_INPUT", InvalidInput),
        (404, "NOT_FOUND", KronosError),
        (408, "REQUEST_TIMEOUT", KronosError),
        (500, "INTERNAL_ERROR", KronosError),
        (504, "PREDICTION_TIMEOUT", PredictionTimeout),
    ],
)
def test_other_refusals_are_not_retried(
    kind: Kind, status: int, code: str, error: type[KronosError]
) -> None:
    service = Service([refusal(status, code, retry_after="1")])
    with pytest.raises(error):
        service.call(kind, "predict", history())
    assert len(service.requests) == 1


@both
@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_requests_that_were_not_sent_are_retried(kind: Kind, failure: type[Exception]) -> None:
    service = Service([failure("refused")])
    assert len(service.call(kind, "predict", history())) == 24
    assert len(service.requests) == 2


@both
def test_unreachable_service_raises_connection_failed(kind: Kind) -> None:
    service = Service([httpx.ConnectError("refused")] * 20)
    with pytest.raises(ConnectionFailed, match="refused") as raised:
        service.call(kind, "predict", history(), max_wait=10)
    assert raised.value.code == "CONNECTION_FAILED"
    assert raised.value.status is None


@both
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (httpx.ReadError("reset"), "The connection failed: reset"),
        (httpx.RemoteProtocolError("closed"), "The connection failed: closed"),
        (httpx.ReadTimeout("slow"), "No response in time: slow"),
        (httpx.DecodingError("not gzip"), "The connection failed: not gzip"),
    ],
)
def test_requests_that_may_have_been_sent_are_not_retried(
    kind: Kind, failure: httpx.RequestError, message: str
) -> None:
    service = Service([failure])
    with pytest.raises(ConnectionFailed, match=message) as raised:
        service.call(kind, "predict", history())
    assert raised.value.__cause__ is failure
    assert len(service.requests) == 1


@both
def test_reads_are_retried_as_well(kind: Kind) -> None:
    models = httpx.Response(200, json={"dtype": "float32"})
    service = Service([refusal(503, "MODEL_NOT_READY", retry_after="1"), models])
    assert service.call(kind, "models") == {"dtype": "float32"}


@both
def test_readiness_is_an_answer_not_a_failure(kind: Kind) -> None:
    loading = {"status": "loading", "model_loaded": False}
    service = Service([httpx.Response(503, json=loading)])
    ready = service.call(kind, "ready")
    assert not ready
    assert (ready.status, ready.model_loaded, ready.response) == ("loading", False, loading)
    assert len(service.requests) == 1


@both
def test_readiness_of_another_service_is_an_error(kind: Kind) -> None:
    with pytest.raises(KronosError, match="expected a readiness"):
        Service([httpx.Response(200, json={"up": True})]).call(kind, "ready")
