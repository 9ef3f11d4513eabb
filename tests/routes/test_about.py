"""What is loaded, what it is called, and what is measured."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kronos_api import __version__
from kronos_api.app import create_app
from kronos_api.config import Settings
from tests.fakes import FAKE_INFO
from tests.web import client_of, predictor_of, serving


async def test_models() -> None:
    async with serving() as client:
        response = await client.get("/v1/models")
    answer = response.json()
    assert answer["model"] == {
        "id": "fake/model",
        "revision": "abc",
        "sha256": "0" * 64,
        "parameters": 1000,
    }
    assert answer["tokenizer"]["id"] == "fake/tokenizer"
    assert answer["context_length"] == FAKE_INFO.max_context
    assert (answer["dtype"], answer["device"], answer["demo"]) == ("float32", "cpu", False)


async def test_the_build_that_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_BUILD_COMMIT", "abc")
    build = {"version": __version__, "commit": "abc"}
    async with serving(app_name="Ours") as client:
        response = await client.get("/")
        health = (await client.get("/v1/healthz/detailed")).json()
    assert response.json() == {"message": "Ours"} | build
    assert health | build == health


@pytest.mark.parametrize("path", ["/metrics", "/v1/metrics"])
async def test_metrics_are_those_of_the_contract(path: str) -> None:
    async with serving() as client:
        response = await client.get(path)
    assert response.headers["Content-Type"].startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(response.text)}
    assert families >= {
        "kronos_requests",
        "kronos_request_duration_seconds",
        "kronos_prediction_latency_seconds",
        "kronos_model_inference_seconds",
        "kronos_request_size_rejections",
        "kronos_timeouts",
        "kronos_concurrent_requests",
        "kronos_prediction_input_size",
        "kronos_queue_wait_seconds",
        "kronos_queue_depth",
        "kronos_active_series",
        "kronos_tokens_decoded",
        "kronos_errors",
        "kronos_rate_limit_hits",
        "kronos_rate_limit_store_failures",
        "kronos_rate_limit_degraded",
        "kronos_model_info",
        "process_resident_memory_bytes",
    }


async def test_open_inference_protocol_answers_from_the_same_state() -> None:
    async with serving(app_name="Ours") as client:
        paths = ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/model")
        live, ready, server, model = [(await client.get(path)).json() for path in paths]
        model_ready = (await client.get("/v2/models/model/ready")).json()
        unknown = await client.get("/v2/models/other/ready")
        long = await client.get(f"/v2/models/{'m' * 2000}")
    assert (live, ready) == ({"live": True}, {"ready": True})
    assert server == {"name": "Ours", "version": __version__, "extensions": []}
    assert (model["name"], model["versions"]) == ("model", [FAKE_INFO.model.version])
    assert model_ready == {"name": "model", "ready": True}
    assert unknown.status_code == 404
    assert "the loaded model is 'model'" in unknown.json()["error"]["message"]
    assert long.status_code == 404
    assert f"No model '{'m' * 128}':" in long.json()["error"]["message"]


async def test_a_model_that_is_not_ready_gets_a_documented_503() -> None:
    predictor = predictor_of()
    app = create_app(Settings(), predictor=predictor)
    async with client_of(app) as client:
        loading = await client.get("/v2/models/model/ready")
        documented = (await client.get("/openapi.json")).json()["paths"]
    assert loading.status_code == 503
    assert loading.json()["error"]["code"] == "MODEL_NOT_READY"
    response = documented["/v2/models/{name}/ready"]["get"]["responses"]["503"]
    schemas = response["content"]["application/json"]["schema"]["anyOf"]
    names = [one["$ref"].rpartition("/")[2] for one in schemas]
    assert names == ["ModelReady", "ErrorResponse"]
