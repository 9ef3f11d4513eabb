"""The service as a whole: its document, its start and stop, and the bundled checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from pydantic import BaseModel

from kronos_api import __version__
from kronos_api.app import create_app
from kronos_api.checkpoints import hub
from kronos_api.checkpoints.info import Source
from kronos_api.config import Settings
from kronos_api.errors import StartupError
from kronos_api.predictor import AsyncPredictor
from kronos_api.schemas.responses import CandleEvent, ErrorResponse, PredictResponse
from kronos_api.telemetry.metrics import metrics
from tests.fakes import FAKE_INFO, SleepyEngine
from tests.processes import free_port
from tests.web import SINGLE, STREAM, body, events, listening, predictor_of, serving, until


def document() -> dict[str, Any]:
    """The OpenAPI document, as it is sent."""
    answer: dict[str, Any] = json.loads(
        json.dumps(create_app(Settings(), predictor=predictor_of()).openapi())
    )
    return answer


DOCUMENT = document()
REQUESTS = [
    pytest.param(path, example["value"], id=f"{path} {name}")
    for path, operations in DOCUMENT["paths"].items()
    if "post" in operations
    for name, example in operations["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ].items()
]


def test_there_are_examples() -> None:
    assert len(REQUESTS) >= 5


@pytest.mark.parametrize(("path", "request_"), REQUESTS)
async def test_examples_of_requests_work(path: str, request_: Any) -> None:
    async with serving() as client:
        response = await client.post(path, json=request_)
    assert response.status_code == 200, response.text


def test_examples_of_answers_are_answers() -> None:
    for path, operations in DOCUMENT["paths"].items():
        if "post" in operations and path != STREAM:
            content = operations["post"]["responses"]["200"]["content"]["application/json"]
            for example in content["examples"].values():
                value = example["value"]
                for answer in value if isinstance(value, list) else [value]:
                    PredictResponse.model_validate(answer)


def test_examples_of_streams_are_events() -> None:
    responses = DOCUMENT["paths"][STREAM]["post"]["responses"]
    models: dict[str, type[BaseModel]]
    models = {"candle": CandleEvent, "done": PredictResponse, "error": ErrorResponse}
    names = []
    for example in responses["200"]["content"]["text/event-stream"]["examples"].values():
        for name, data in events(example["value"]):
            models[name].model_validate(data)
            names.append(name)
    assert set(names) == set(models)


def test_the_document_tells_of_errors_in_our_shape_alone() -> None:
    text = json.dumps(DOCUMENT)
    assert "HTTPValidationError" not in text
    for path, operations in DOCUMENT["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) < 400 or path.endswith(("/readyz", "/ready")):
                    continue
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
    predict = DOCUMENT["paths"][SINGLE]["post"]["responses"]
    refused = {"400", "403", "408", "409", "413", "415", "422", "429"}
    assert set(predict) == {"200", *refused, "500", "503", "504"}


def test_every_reference_in_the_document_leads_somewhere() -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        if isinstance(node, list):
            return [ref for value in node for ref in references(value)]
        return []

    found = set(references(DOCUMENT))
    assert "#/components/schemas/PredictRequest" in found
    for reference in found:
        kind, _, name = reference.removeprefix("#/components/").partition("/")
        assert name in DOCUMENT["components"][kind]


def test_the_document_has_bounds_and_words() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    request = schemas["PredictRequest"]
    assert request["additionalProperties"] is False
    assert request["properties"]["timestamps"]["maxItems"] == 2048
    assert schemas["Candle"]["properties"]["open"]["exclusiveMinimum"] == 0
    assert all(
        "description" in field
        for name in ("PredictRequest", "Overrides")
        for field in schemas[name]["properties"].values()
    )


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_documentation_is_served(path: str) -> None:
    async with serving(app_name="Ours") as client:
        response = await client.get(path)
    assert response.status_code == 200
    assert "Ours" in response.text


async def test_errors_are_what_the_document_says() -> None:
    async with serving() as client:
        response = await client.post(SINGLE, json=body(horizon=0))
    ErrorResponse.model_validate_json(response.content)


async def test_the_bundled_checkpoint_answers(capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(Settings(torch_threads=1))
    async with (
        listening(app) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as client,
    ):
        while (await client.get("/v1/readyz")).status_code == 503:
            pass
        response = await client.post(SINGLE, json=body(60, horizon=5, overrides={"top_k": 1024}))
        described = (await client.get("/v1/models")).json()
    answer = PredictResponse.model_validate_json(response.content)
    assert len(answer.prediction) == 5
    assert answer.demo
    assert answer.context_used == 60
    assert answer.model_version.startswith("kronos-demo@")
    assert described["demo"]
    labels = {"model": answer.model_version, "tokenizer": answer.tokenizer_version}
    labels |= {"device": "cpu", "dtype": "float32", "demo": "true"}
    assert metrics.registry.get_sample_value("kronos_model_info", labels) == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    warned = [line["event"] for line in printed if line["level"] == "warning"]
    assert "demo_checkpoint" in warned


async def test_a_device_that_is_not_what_it_should_be_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = SleepyEngine(info=replace(FAKE_INFO, device_warning="no GPU after all"))
    predictor = predictor_of(engine)
    async with listening(create_app(Settings(), predictor=predictor)):
        await until(lambda: predictor.state == "ready")
        await until(lambda: "no GPU after all" in capsys.readouterr().out)


async def test_the_build_is_in_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_BUILD_COMMIT", "abc")
    app = create_app(Settings(), predictor=predictor_of())
    async with (
        listening(app) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}") as client,
    ):
        text = (await client.get("/metrics")).text
    assert f'kronos_build_info{{commit="abc",version="{__version__}"}} 1.0' in text


async def test_a_model_that_fails_to_load_is_told_where_the_server_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load() -> Any:
        raise StartupError("no such device")

    app = create_app(Settings(), predictor=AsyncPredictor(load))
    async with (
        listening(app, uvicorn.Server) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}") as client,
    ):
        await until(lambda: "no such device" in capsys.readouterr().out)
        ready = await client.get("/v1/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "failed")


async def test_checking_the_checkpoints_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    inner = hub.locate

    def stuck(*args: Any, **options: Any) -> Source:
        release.wait(5)
        return inner(*args, **options)

    monkeypatch.setattr("kronos_api.lifecycle.locate", stuck)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)
        release.set()

    app = create_app(Settings(startup_timeout=0.05))
    await app({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "KRONOS_STARTUP_TIMEOUT (0.05 s)" in sent[0]["message"]


def serve(**variables: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """The outcome of a server that is expected to end by itself, and the port it was given."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "kronos_api.main:app", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:  # where no .env of a developer lies
        outcome = subprocess.run(
            command,
            cwd=folder,
            env=dict(os.environ) | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return outcome, port


@pytest.mark.process
def test_bad_settings_end_the_start_with_one_line() -> None:
    outcome, _ = serve(KRONOS_PORT="http", KRONOS_DTYPE="float16")
    assert outcome.returncode == 1
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("kronos-api: KRONOS_PORT: ")
    assert "KRONOS_DTYPE" in line
    assert outcome.stdout == ""


@pytest.mark.process
def test_a_checkpoint_that_is_not_there_ends_the_start_before_the_port_opens() -> None:
    outcome, port = serve(KRONOS_MODEL_PATH="/nowhere", KRONOS_MODLE_ID="x")
    assert outcome.returncode != 0
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    errors = [line["event"] for line in lines if line["level"] == "error"]
    assert errors[0] == "model folder /nowhere/model does not exist"
    assert not any("exception" in line for line in lines)
    assert "Traceback" not in outcome.stderr
    assert not any(f":{port}" in line["event"] for line in lines)
    warned = [line["message"] for line in lines if line["event"] == "unknown_setting"]
    assert warned == ["'KRONOS_MODLE_ID' is not a setting; did you mean KRONOS_MODEL_ID?"]
