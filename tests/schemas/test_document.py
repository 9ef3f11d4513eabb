"""The OpenAPI document has what client generators need."""

from __future__ import annotations

import json
from typing import Any

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api.errors import error_codes
from tests.web import SINGLE, body, predictor_of, serving

DOCUMENT: dict[str, Any] = json.loads(
    json.dumps(create_app(Settings(), predictor=predictor_of()).openapi())
)
OPERATIONS = [
    (path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for operation in operations.values()
]


def test_schemas_have_neither_defaults_nor_constants() -> None:
    schemas = json.dumps(DOCUMENT["components"]["schemas"])
    assert '"default"' not in schemas
    assert '"const"' not in schemas


def test_no_optional_field_is_required() -> None:
    required = DOCUMENT["components"]["schemas"]["PredictRequest"]["required"]
    assert required == ["candles", "timestamps"]


def test_operation_ids_are_plain_and_unique() -> None:
    ids = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert {"predict_single", "predict_batch", "healthz", "readyz", "models"} <= set(ids)
    assert not [name for name in ids if name.endswith(("_get", "_post"))]


def test_error_codes_are_an_enum() -> None:
    code = DOCUMENT["components"]["schemas"]["ErrorBody"]["properties"]["code"]
    assert code["enum"] == error_codes()
    assert {"INVALID_INPUT", "RATE_LIMITED", "QUEUE_FULL"} <= set(code["enum"])


def test_every_described_code_is_in_the_enum() -> None:
    for _, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            if int(status) >= 400 and response["description"].isupper():
                assert set(response["description"].split(", ")) <= set(error_codes())


def test_every_response_names_its_headers() -> None:
    for _, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"]
            assert ("Retry-After" in response["headers"]) == (status in ("409", "429", "503"))


async def test_responses_have_the_documented_headers() -> None:
    async with serving(rate_limit_per_minute=1) as client:
        answered = await client.post(SINGLE, json=body())
        refused = await client.post(SINGLE, json=body())
    assert (answered.status_code, refused.status_code) == (200, 429)
    for response in (answered, refused):
        documented = DOCUMENT["paths"][SINGLE]["post"]["responses"][str(response.status_code)]
        for name in documented["headers"].keys() - {"X-Cache"}:  # of kept responses
            assert name in response.headers
