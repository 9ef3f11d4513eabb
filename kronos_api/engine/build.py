"""Builds an engine on a device from two checkpoints."""

from __future__ import annotations

import numpy as np
import torch

from kronos_api.checkpoints.info import ModelInfo, Part, Source
from kronos_api.checkpoints.loader import context_of, inspect, load_model, load_tokenizer
from kronos_api.cores import usable_cores
from kronos_api.engine.engine import Engine
from kronos_api.engine.int8 import int8_problem
from kronos_api.engine.kv_memory import KVMemory
from kronos_api.engine.model_runner import ModelRunner
from kronos_api.engine.request import ForecastRequest
from kronos_api.engine.sampling import SamplingParams
from kronos_api.engine.tokenizer_runner import TokenizerRunner
from kronos_api.engine.window import WindowPolicy
from kronos_api.errors import StartupError

MAX_HISTORY = 2048
"""Rows that the tokenizer encodes at most, whatever the context of the model."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def build_engine(
    model: Source,
    tokenizer: Source,
    *,
    device: str = "auto",
    dtype: str = "float32",
    max_context: int | None = None,
    window_policy: WindowPolicy = "anchor",
    torch_threads: int | None = None,
) -> Engine:
    """Load both checkpoints, pack their weights and run one small forecast to warm up.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or `auto` for the first GPU if there is one.
        dtype: `float32`, `bfloat16` or `int8`, of the model; int8 also of the tokenizer's decoder.
            The encoder stays float32, because the signs of its output are the tokens. Where int8
            has no fast kernel, float32 is used and `dtype_warning` says why.
        max_context: candles the model sees at once; None for the context it was trained with.
        torch_threads: threads of one tensor operation; None for one per usable core.

    Raises:
        StartupError: a checkpoint or the device is not usable.
    """
    # Before any tensor is made: torch's thread pools keep the size they start with.
    torch.set_num_threads(torch_threads or usable_cores())
    chosen, warning = _choose_device(device)
    inspect(model, tokenizer)
    problem = int8_problem(chosen) if dtype == "int8" else None
    if problem is not None:
        dtype = "float32"
    context = max_context or context_of(model)
    memory = KVMemory()
    runner, model_part = _pack_model(model, context, memory, chosen, DTYPES[dtype])
    tokenizer_runner, tokenizer_part = _pack_tokenizer(
        tokenizer, context, memory, chosen, DTYPES[dtype]
    )
    info = ModelInfo(
        model=model_part,
        tokenizer=tokenizer_part,
        max_context=context,
        dtype=dtype,
        device=str(chosen),
        demo=model.demo or tokenizer.demo,
        kernels=runner.kernels.name,
        device_warning=warning,
        dtype_warning=problem,
    )
    engine = Engine(runner, tokenizer_runner, info, window_policy)
    _warm_up(engine)
    return engine


@torch.inference_mode()
def _pack_model(
    source: Source, context: int, memory: KVMemory, device: torch.device, dtype: torch.dtype
) -> tuple[ModelRunner, Part]:
    """Load and pack the model; the plain weights are released at the end."""
    network, part = load_model(source)
    return ModelRunner(network, context, memory, device=device, dtype=dtype), part


@torch.inference_mode()
def _pack_tokenizer(
    source: Source, context: int, memory: KVMemory, device: torch.device, dtype: torch.dtype
) -> tuple[TokenizerRunner, Part]:
    network, part = load_tokenizer(source)
    positions = max(MAX_HISTORY, context)
    return TokenizerRunner(network, positions, memory, device=device, dtype=dtype), part


def _choose_device(device: str) -> tuple[torch.device, str | None]:
    available = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda:0" if available else "cpu"), None
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if not available:
            raise StartupError(
                f"KRONOS_DEVICE is {device}, but torch finds no GPU. Set it to cpu or auto."
            )
        count = torch.cuda.device_count()
        if index >= count:
            raise StartupError(
                f"KRONOS_DEVICE is {device}, but torch finds {count} GPUs. Set it to one from"
                f" cuda:0 to cuda:{count - 1}, or to auto."
            )
        return torch.device("cuda", index), None
    if available:
        return torch.device("cpu"), "A GPU is available, but KRONOS_DEVICE is cpu."
    return torch.device("cpu"), None


def _warm_up(engine: Engine) -> None:
    """Run one small forecast: the first use of a backend is slow."""
    times, params = np.zeros((8, 5), np.int64), SamplingParams(top_p=0.9, sample_count=2)
    engine.run(ForecastRequest(np.zeros((8, 6), np.float32), times, times[:2], params))
