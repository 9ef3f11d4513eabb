from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import kronos_api
from kronos_api.model import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig

DEMO = Path(kronos_api.__file__).parent / "assets" / "kronos-demo"
ALLOWED = 4_000_000


def load(folder: str) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    config = json.loads((DEMO / folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(DEMO / folder / "model.safetensors")
    return config, {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def test_the_bundled_checkpoint_is_small_and_complete() -> None:
    files = sorted(str(p.relative_to(DEMO)) for p in DEMO.rglob("*") if p.is_file())
    assert files == [
        f"{part}/{name}"
        for part in ("model", "tokenizer")
        for name in ("config.json", "model.safetensors")
    ]
    assert sum(p.stat().st_size for p in DEMO.rglob("*") if p.is_file()) <= ALLOWED


def test_the_bundled_checkpoint_loads_and_predicts() -> None:
    config, tensors = load("tokenizer")
    tokenizer = KronosTokenizer(TokenizerConfig.from_json(config)).eval()
    tokenizer.load_state_dict(tensors, strict=True)
    config, tensors = load("model")
    model = Kronos(KronosConfig.from_json(config)).eval()
    model.load_state_dict(tensors, strict=True)
    assert model.config.s1_bits == tokenizer.config.s1_bits
    assert model.config.s2_bits == tokenizer.config.s2_bits

    torch.manual_seed(0)
    walk = torch.randn(1, 400, 1).cumsum(1).expand(-1, -1, 6)
    candles = ((walk - walk.mean(1)) / walk.std(1)).clamp(-5, 5)
    with torch.no_grad():
        s1, s2 = tokenizer.tokens(tokenizer.latents(candles))
        hidden = model.hidden(s1, s2, torch.zeros(1, 400, 5, dtype=torch.int64))
        coarse, fine = model.s1_logits(hidden), model.s2_logits(hidden, s1)
        found = tokenizer.reconstruct(tokenizer.codes(s1, s2))
    assert coarse.isfinite().all()
    assert fine.isfinite().all()
    # A trained tokenizer gives the close back, far better than the mean (error 1) would.
    assert (found - candles)[..., 3].square().mean().sqrt() == pytest.approx(0, abs=0.3)
