"""Schemas and texts of the tools."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from kronos_api.mcp.texts import ROWS, calendars_text, forecast_text
from kronos_api.mcp.tools import definitions
from kronos_api.schemas.examples import SINGLE_ANSWER, SINGLE_REQUESTS

TOOLS = {tool.name: tool for tool in definitions()}


@pytest.mark.parametrize("example", SINGLE_REQUESTS)
def test_examples_of_requests_fit_the_input_schema(example: str) -> None:
    jsonschema.validate(SINGLE_REQUESTS[example]["value"], TOOLS["forecast"].input_schema)


def test_schemas_are_objects_without_references_and_every_argument_is_described() -> None:
    for tool in TOOLS.values():
        assert tool.input_schema["type"] == "object"
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        assert "$ref" not in json.dumps([tool.input_schema, tool.output_schema])
        for argument in tool.input_schema.get("properties", {}).values():
            assert argument["description"]


def test_the_example_of_a_description_is_a_request() -> None:
    description = TOOLS["forecast"].description or ""
    example = json.loads(description.rpartition("Example of arguments: ")[2])
    jsonschema.validate(example, TOOLS["forecast"].input_schema)


def forecast(steps: int) -> dict[str, Any]:
    answer: dict[str, Any] = dict(SINGLE_ANSWER["one step"]["value"])
    (candle,) = answer["prediction"]
    candles = [candle | {"timestamp": f"step {n}", "low": 90.0 + n} for n in range(steps)]
    return answer | {"prediction": candles}


@pytest.mark.parametrize("steps", [1, ROWS, ROWS + 1, 512])
def test_the_text_of_a_forecast_is_short_and_has_both_ends(steps: int) -> None:
    text = forecast_text(forecast(steps))
    rows = [line for line in text.splitlines() if line.startswith("step ")]
    assert len(rows) == min(steps, ROWS)
    assert (rows[0][:7], rows[-1].split(",")[0]) == ("step 0,", f"step {steps - 1}")
    assert "lowest 90," in text
    assert "DEMO_MODEL" in text
    assert ("structuredContent has all" in text) == (steps > ROWS)


def test_quantiles_and_summary_are_in_the_text() -> None:
    answer = forecast(2) | {
        "quantiles": {"0.1": {"close": [99.0, 98.0]}, "0.9": {"close": [103.0, 104.0]}},
        "summary": {
            "p_up": [0.4, 0.6],
            "expected_return": [0.001, 0.002],
            "volatility": [0.01, 0.02],
            "var_95": 0.03,
            "es_95": 0.04,
            "max_drawdown": {"median": 0.05, "p95": 0.06},
            "p_touch": [{"level": 110.0, "probability": 0.25}],
        },
    }
    lines = forecast_text(answer).splitlines()
    assert lines[1].endswith(",volume,close-q-0.1,close-q-0.9")
    assert lines[3].endswith(",98,104")
    assert lines[4].startswith("Until the last step: p_up 0.6; ")
    assert lines[4].endswith("max_drawdown 0.05 (95 %: 0.06); p_touch 110: 0.25")


def test_no_matching_calendar_is_said() -> None:
    assert "No calendar matches" in calendars_text({"calendars": []})
