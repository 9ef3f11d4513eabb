"""The example of the documentation runs, and its JSON can be pasted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from tests.web import listening, predictor_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "mcp.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_python_example_prints_a_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    defined: dict[str, Any] = {}
    exec(example, defined)
    app = create_app(Settings(mcp=True, log_level="ERROR"), predictor=predictor_of())
    async with listening(app) as (host, port):
        await defined["main"](f"http://{host}:{port}/mcp")
    assert "Forecast: 4 steps from 2025-06-02T09:45" in capsys.readouterr().out


def test_json_of_the_page_is_json() -> None:
    assert len([json.loads(block) for block in blocks("json")]) == 3
