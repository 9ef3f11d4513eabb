"""Checkpoints of the service: folders of `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from kronos_api.model import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig


def write(model: Kronos | KronosTokenizer, folder: Path) -> None:
    """Write `model` into `folder`: weights as float16, constant tables as they are."""
    weights = {name for name, _ in model.named_parameters()}
    tensors = {
        name: (value.half() if name in weights else value).contiguous()
        for name, value in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(model.config.to_json(), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    scratch = folder / "model.safetensors.part"
    save_file(tensors, scratch)
    scratch.chmod(0o644)  # safetensors writes for the owner alone
    scratch.replace(folder / "model.safetensors")


def read(folder: Path) -> tuple[Kronos, KronosTokenizer]:
    """Load `folder`/model and `folder`/tokenizer as float32, in eval mode."""
    model = Kronos(KronosConfig.from_json(_config(folder / "model")))
    tokenizer = KronosTokenizer(TokenizerConfig.from_json(_config(folder / "tokenizer")))
    for module, name in ((model, "model"), (tokenizer, "tokenizer")):
        tensors = load_file(folder / name / "model.safetensors")
        wide = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
        module.load_state_dict(wide, strict=True)
        module.eval()
    return model, tokenizer


def _config(folder: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values
