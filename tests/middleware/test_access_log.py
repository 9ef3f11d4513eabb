"""The access log: one line and one set of metrics for each request."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Scope

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.middleware.access_log import AccessLog
from kronos_api.telemetry.log_fields import ORDER
from kronos_api.telemetry.metrics import metrics
from tests.fakes import SleepyEngine, stuck
from tests.web import BATCH, SINGLE, body, client_of, listening, predictor_of, serving


def request_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of requests that were printed."""
    printed = map(json.loads, capsys.readouterr().out.splitlines())
    return [line for line in printed if line["event"] == "request"]


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


async def test_successful_probes_are_logged_as_debug(capsys: pytest.CaptureFixture[str]) -> None:
    paths = ("/health", "/v1/healthz", "/v1/readyz", "/metrics")
    async with serving() as client:
        before = counted("/v1/readyz", 200)
        for path in paths:
            assert (await client.get(path)).status_code == 200
        await client.post("/v1/readyz")
        assert counted("/v1/readyz", 200) == before + 1
    (line,) = request_lines(capsys)
    assert (line["endpoint"], line["status"]) == ("/v1/readyz", 405)


async def test_line_of_a_forecast_has_its_parameters_and_timings_in_one_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sampling = {"temperature": 0.5, "top_p": 0.75, "top_k": 7, "seed": 11}
    engine = SleepyEngine()
    async with serving(engine, request_timeout=0.5, inference_timeout=0.4) as client:
        assert (await client.post(SINGLE, json=body(overrides=sampling))).status_code == 200
        async with stuck(engine):
            assert (await client.post(SINGLE, json=body(overrides=sampling))).status_code == 504
        items = [body(overrides={"seed": seed}, series_id=f"{seed}") for seed in (1, 2)]
        assert (await client.post(BATCH, json={"items": items})).status_code == 200
    well, late, batch = request_lines(capsys)
    for line in (well, late):
        assert {name: line[name] for name in sampling} == sampling
        assert line["container_name"] == "localhost"
        assert line["queue_ms"] >= 0
        assert line["inference_ms"] > 0
        assert list(line) == [name for name in ORDER if name in line]
    assert (late["status"], late["code"]) == (504, "PREDICTION_TIMEOUT")
    assert well["decode_ms"] >= 0
    assert late["inference_ms"] > 300
    assert batch["seed"] == [1, 2]
    assert batch["top_k"] == 0


async def test_line_of_an_invalid_request_has_field_and_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving() as client:
        await client.post(SINGLE, json=body(horizon=0))
    (line,) = request_lines(capsys)
    assert (line["status"], line["code"]) == (400, "INVALID_INPUT")
    assert (line["field"], line["violations"]) == ("horizon", 1)
    assert "1" in line["rule"]


async def test_refusals_name_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(container_whitelist="10.0.0.1") as client:
        await client.get("/v1/models")  # 403, not listed
    async with serving(allowed_hosts="api.example.com") as client:
        await client.get("/v1/models", headers={"Host": "evil.example.com"})  # 403
    async with client_of(create_app(Settings(), predictor=predictor_of())) as client:
        await client.post(SINGLE, json=body())  # 503, no model
    lines = request_lines(capsys)
    assert [line["status"] for line in lines] == [403, 403, 503]
    assert [line["container_name"] for line in lines] == ["127.0.0.1", "127.0.0.1", "localhost"]


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


async def test_requests_count_for_their_caller_and_probes_for_none() -> None:
    def by_caller(container: str, status: int) -> float:
        labels = {"container": container, "status": str(status)}
        return metrics.registry.get_sample_value("kronos_caller_requests_total", labels) or 0

    before = by_caller("localhost", 200), by_caller("localhost", 400), by_caller("other", 200)
    async with serving() as client:
        await client.get("/v1/models")
        await client.post(SINGLE, json=body(horizon=0))
        await client.get("/v1/healthz")
    after = by_caller("localhost", 200), by_caller("localhost", 400), by_caller("other", 200)
    assert after == (before[0] + 1, before[1] + 1, before[2])


async def test_scrape_does_not_count_itself() -> None:
    async with serving() as client:
        text = (await client.get("/metrics")).text
        text = (await client.get("/v1/metrics")).text
    assert "kronos_concurrent_requests 0.0" in text
    assert 'route="/metrics"' not in text
    assert 'route="/v1/metrics"' not in text


async def test_invented_names_add_no_series() -> None:
    async with serving() as client:
        await client.get("/missing")
        await client.request("HELLO", "/v1/models")
        before = len(metrics.render().splitlines())
        for number in range(50):
            name = f"invented-{number}"
            headers = {"X-Container-Name": name, "X-Forwarded-For": f"10.0.0.{number}"}
            await client.get(f"/{name}", headers=headers | {"User-Agent": name})
            await client.request(name.upper(), "/v1/models", headers=headers)
            await client.post(SINGLE, json=body(series_id=name, horizon=0), headers=headers)
        text = metrics.render().decode()
    assert len(text.splitlines()) == before
    assert "invented" not in text.lower()


async def test_series_with_known_labels_exist_from_the_start(tmp_path: Path) -> None:
    settings = Settings(container_whitelist="shop,10.0.0.0/8,localhost", rate_limit_dir=tmp_path)
    async with listening(create_app(settings, predictor=predictor_of())):
        text = metrics.render().decode()
    for series in (
        'kronos_requests_total{route="/v1/predict/batch",status="504"}',
        'kronos_caller_requests_total{container="shop",status="503"}',
        'kronos_rate_limit_hits_total{container="10.0.0.0/8"}',
        'kronos_security_events_total{container="other",event="refused"}',
        'kronos_errors_total{code="QUEUE_FULL"}',
        'kronos_timeouts_total{endpoint="batch"}',
        'kronos_phase_seconds_count{phase="detokenize"}',
        'kronos_dns_query_seconds_count{result="failed"}',
    ):
        assert series in text
    for limit in ("queue_limit 64", "kv_cache_limit_bytes 1.07", "rate_limit_per_minute 100"):
        assert f"kronos_{limit}" in text
