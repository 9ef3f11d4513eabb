"""The access log: one line and one set of metrics for each request."""

from __future__ import annotations

import json
import time

import pytest
from starlette.types import Scope

from kronos_api.middleware.access_log import AccessLog
from kronos_api.telemetry.metrics import metrics
from tests.web import SINGLE, serving


def counted(route: str, status: int) -> float:
    labels = {"route": route, "status": str(status)}
    return metrics.registry.get_sample_value("kronos_requests_total", labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/", "/", 200),
        ("GET", "/v1/models?x=1", "/v1/models", 200),
        ("GET", "/docs", "/docs", 200),
        ("GET", "/openapi.json", "/openapi.json", 200),
        ("GET", "/secret/4711", "unmatched", 404),
        ("HEAD", "/docs", "/docs", 200),
        ("DELETE", "/v1/models", "/v1/models", 405),
    ],
)
async def test_the_route_is_its_template(
    capsys: pytest.CaptureFixture[str], method: str, path: str, route: str, status: int
) -> None:
    async with serving() as client:
        before = counted(route, status)
        await client.request(method, path)
    assert counted(route, status) == before + 1
    printed = capsys.readouterr().out.splitlines()
    (line,) = (line for line in map(json.loads, printed) if line["event"] == "request")
    assert (line["method"], line["endpoint"], line["status"]) == (method, route, status)
    assert line["latency_ms"] >= 0
    assert "4711" not in json.dumps(line)


@pytest.mark.parametrize(("path", "lines"), [("/v1/healthz", 0), ("/v1/readyz", 1)])
async def test_successful_liveness_checks_are_logged_as_debug(
    capsys: pytest.CaptureFixture[str], path: str, lines: int
) -> None:
    async with serving() as client:
        before = counted(path, 200)
        assert (await client.get(path)).status_code == 200
        assert counted(path, 200) == before + 1
    printed = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert printed.count("request") == lines


async def test_refusal_before_routing_counts_for_its_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # no minute ends meanwhile
    before = counted(SINGLE, 429), counted(SINGLE, 413)
    async with serving(rate_limit_per_minute=1, max_request_size_mb=1 / 1024) as client:
        await client.post(SINGLE, content=b" " * 2000)
        await client.post(SINGLE)
    assert (counted(SINGLE, 429), counted(SINGLE, 413)) == (before[0] + 1, before[1] + 1)


async def test_disconnected_client_is_counted() -> None:
    async def leave(*_: object) -> None:
        assert metrics.registry.get_sample_value("kronos_concurrent_requests") == before + 1
        raise ConnectionError

    before = metrics.registry.get_sample_value("kronos_concurrent_requests") or 0
    requests = counted("unmatched", 499)
    scope: Scope = {"type": "http", "method": "GET", "path": "/"}
    with pytest.raises(ConnectionError):
        await AccessLog(leave)(scope, None, None)  # type: ignore[arg-type]
    assert metrics.registry.get_sample_value("kronos_concurrent_requests") == before
    assert counted("unmatched", 499) == requests + 1
