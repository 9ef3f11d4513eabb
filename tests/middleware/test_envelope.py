"""One envelope for every error, unhandled exceptions included."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from kronos_api.errors import KronosError, ModelNotReady, QueueFull
from kronos_api.middleware.envelope import Envelope, render
from kronos_api.telemetry.metrics import metrics
from tests.web import client_of, serving


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/health/", 404, "NOT_FOUND"),
        ("GET", "/v1/predict/single", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/health", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/predict/single", 400, "MALFORMED_JSON"),
    ],
)
async def test_every_refusal_has_the_shape(method: str, path: str, status: int, code: str) -> None:
    labels = {"code": code}
    before = metrics.registry.get_sample_value("kronos_errors_total", labels) or 0
    async with serving() as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert list(error) == ["code", "message", "details", "request_id"]
    assert error["code"] == code
    assert metrics.registry.get_sample_value("kronos_errors_total", labels) == before + 1
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (QueueFull("full", retry_after=0.2), "1"),
        (QueueFull("full", retry_after=2.1), "3"),
        (ModelNotReady("loading"), "1"),
        (KronosError("other"), None),
    ],
)
def test_retry_after(error: KronosError, header: str | None) -> None:
    assert render(error, {"type": "http"}).headers.get("Retry-After") == header


async def test_unhandled_exception_is_logged_and_not_revealed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async def app(*_: object) -> None:
        raise RuntimeError("s3cr3t")

    async with client_of(Envelope(app)) as client:
        response = await client.get("/")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "INTERNAL_ERROR"
    assert "s3cr3t" not in response.text
    assert "s3cr3t" in caplog.text + capsys.readouterr().out


async def test_unhandled_exception_breaks_off_a_started_response() -> None:
    async def half() -> Any:
        yield b"half"
        raise RuntimeError

    app = Envelope(StreamingResponse(half()))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises((RuntimeError, ExceptionGroup)):
        await app({"type": "http", "method": "GET", "asgi": {"spec_version": "2.4"}}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert json.dumps(sent[1]["body"].decode()) == '"half"'
