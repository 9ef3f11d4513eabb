"""The example of docs/caching.md runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from tests.web import listening, predictor_of, until

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "caching.md").read_text("utf-8")


async def test_example_of_a_seeded_request_hits(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    defined: dict[str, Any] = {"__name__": "example"}
    exec(example, defined)
    predictor = predictor_of()
    app = create_app(Settings(cache="memory", log_level="ERROR"), predictor=predictor)
    async with listening(app) as (host, port):
        await until(lambda: predictor.state == "ready")
        await asyncio.to_thread(defined["ask_twice"], f"http://{host}:{port}")
    assert "miss hit" in capsys.readouterr().out
