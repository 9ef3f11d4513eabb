from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kronos_api.engine.sampling import SamplingParams
from kronos_api.model import Kronos, KronosTokenizer
from kronos_api.timeseries.features import time_features
from tests.training.walks import walk, write_csv
from training import checkpoint
from training.evaluate import Case, main, request, returns
from training.train import Plan

TINY = Plan(width=16, layers=1, tokenizer_width=16, tokenizer_layers=2, bits=4)


def test_the_request_holds_the_history_and_nothing_of_the_future() -> None:
    window = walk(60)
    asked = request(window, Case(history=50, horizon=10, sample_count=7), seed=3)
    np.testing.assert_array_equal(asked.candles, window.candles[:50])
    np.testing.assert_array_equal(
        asked.future_time_features, time_features(window.timestamps.tolist()[50:])
    )
    assert asked.params == SamplingParams(temperature=1.0, top_p=0.9, sample_count=7, seed=3)


def test_returns_are_over_the_last_close_of_the_history() -> None:
    window = walk(60)
    last = float(window.candles[49, 3])
    found = returns(window, 50, np.array([last, last * 2, -1.0], dtype=np.float32))
    assert found[:2].tolist() == pytest.approx([0, np.log(2)], abs=1e-6)
    assert found[2] == -np.inf


def test_a_checkpoint_is_measured_through_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    checkpoint.write(Kronos(TINY.model_config()), tmp_path / "model")
    checkpoint.write(KronosTokenizer(TINY.tokenizer_config()), tmp_path / "tokenizer")
    source = write_csv(walk(1000), tmp_path / "walk.csv")
    figures: list[dict[str, dict[str, float]]] = []
    threads = torch.get_num_threads()
    for turn in ("first", "second"):
        out = tmp_path / f"{turn}.json"
        options = ["--windows=3", "--sample-count=5", "--history=64", "--horizon=4", "--top-p=0.9"]
        main(["--candles", source, "--model", str(tmp_path), "--out", str(out), *options])
        figures.append(json.loads(out.read_text())["walk"])
    torch.set_num_threads(threads)
    assert figures[0] == figures[1]
    assert set(figures[0]) == {"model, top_p 0.9", "last close", "historical volatility"}
    assert 0 < figures[0]["model, top_p 0.9"]["pinball_bp"] < np.inf
    assert "| walk | last close |" in capsys.readouterr().out
