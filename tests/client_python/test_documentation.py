"""The examples of the documentation run against the service, around a fake engine."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kronos_api.app import create_app
from kronos_api.config import Settings
from kronos_api_client import KronosClient
from tests.processes import ROOT, services
from tests.web import listening, predictor_of, until

CLIENT = ROOT / "clients" / "python" / "README.md"
GUIDE = ROOT / "docs" / "client.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE = "http://localhost:8000"


def examples(page: Path) -> list[str]:
    """The examples of `page` that use the client."""
    blocks = BLOCK.findall(page.read_text("utf-8"))
    return [block for block in blocks if page != ROOT / "README.md" or "kronos_api_client" in block]


def run(page: Path, url: str) -> dict[str, Any]:
    """The names that the examples define, one after another, for the service at `url`."""
    names: dict[str, Any] = {}
    for block in examples(page):
        exec(block.replace(HERE, url), names)
    return names


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the examples."""
    for name in ("candles.csv", "examples/candles.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "examples" / "candles.csv", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


@pytest.mark.parametrize("page", [CLIENT, GUIDE, ROOT / "README.md"], ids=lambda page: page.name)
async def test_examples_run(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = predictor_of()
    async with listening(create_app(Settings(), predictor=predictor)) as (host, port):
        await until(lambda: predictor.state == "ready")
        names = await asyncio.to_thread(run, page, f"http://{host}:{port}")
    forecast = names["forecast"]
    assert len(forecast) == 24
    assert forecast.index[0] == names["candles"].index[-1] + pd.Timedelta("15min")
    assert (forecast["close-q-0.1"] <= forecast["close-q-0.9"]).all()
    if page == GUIDE:
        said = capsys.readouterr().out
        assert "'field': 'candles.low', 'index': 0, 'constraint': " in said
        assert "fake/model" in said
        assert (folder / "forecast.png").stat().st_size > 10_000


@pytest.mark.process
def test_three_lines_against_a_real_service(folder: Path) -> None:
    assert len(examples(CLIENT)) == 1
    with services(folder) as (service,):
        names = run(CLIENT, service.url)
        with KronosClient(service.url) as client:
            again = client.forecast(names["candles"], 24, seed=7)
            same = client.predict(names["candles"], 24, seed=7)
    assert len(names["forecast"]) == 24
    assert names["forecast"].attrs["kronos"]["demo"]
    pd.testing.assert_frame_equal(again.frame, same)
