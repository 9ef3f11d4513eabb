from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kronos_api.model import Kronos, KronosTokenizer
from tests.training.walks import walk, write_csv
from training import calibrate, checkpoint
from training.candles import Series, split
from training.evaluate import Case
from training.metrics import Doubles, historical_volatility
from training.train import Plan

TINY = Plan(width=16, layers=1, tokenizer_width=16, tokenizer_layers=2, bits=4)


def too_narrow(windows: Sequence[Series], case: Case) -> Doubles:
    """A random walk with a quarter of the right width at temperature 1."""
    closes = np.stack([w.candles[: case.history, 3] for w in windows]).astype(np.float64)
    return historical_volatility(closes, case.horizon) / 4 * case.temperature


def test_logits_are_divided_by_the_temperature() -> None:
    torch.manual_seed(0)
    model = Kronos(TINY.model_config())
    hidden, chosen = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.int64)
    before = model.s1_logits(hidden), model.s2_logits(hidden, chosen)
    calibrate.soften(model, 1.25)
    after = model.s1_logits(hidden), model.s2_logits(hidden, chosen)
    for cold, warm in zip(before, after, strict=True):
        torch.testing.assert_close(warm, cold / 1.25)


def test_a_narrow_forecaster_loses_less_the_wider_it_gets() -> None:
    splits = [split(walk(6000))]
    case = Case(history=200, windows=40)
    losses = [
        calibrate.loss(splits, too_narrow, replace(case, temperature=t)) for t in (1.0, 2.0, 4.0)
    ]
    assert losses[0] > losses[1] > losses[2] == pytest.approx(1)


def test_the_best_temperature_is_written_into_the_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    checkpoint.write(Kronos(TINY.model_config()), tmp_path / "raw" / "model")
    checkpoint.write(KronosTokenizer(TINY.tokenizer_config()), tmp_path / "raw" / "tokenizer")
    monkeypatch.setattr(calibrate, "Service", lambda *_: too_narrow)
    source = write_csv(walk(6000), tmp_path / "walk.csv")
    folders = ["--model", str(tmp_path / "raw"), "--out", str(tmp_path / "done")]
    calibrate.main(["--candles", source, *folders, "--temperatures", "1", "4", "30"])
    (raw, _), (done, tokenizer) = (checkpoint.read(tmp_path / name) for name in ("raw", "done"))
    torch.testing.assert_close(done.head.proj_s1.weight, raw.head.proj_s1.weight / 4)
    torch.testing.assert_close(done.head.proj_s2.bias, raw.head.proj_s2.bias / 4, rtol=1e-3, atol=0)
    torch.testing.assert_close(done.norm.weight, raw.norm.weight)
    assert tokenizer.config == TINY.tokenizer_config()
