"""What a transformer computes between its GEMMs, and how tokens are drawn."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from kronos_api.engine.kernels.plain import PlainKernels


def choose_kernels(device: torch.device | str, dtype: torch.dtype) -> PlainKernels:
    """The fastest kernels that are installed, for tensors of `dtype` on `device`.

    Those of Numba come with the extra `fast`.
    """
    suits = torch.device(device).type == "cpu" and dtype in (torch.float32, torch.int8)
    if not suits or find_spec("numba") is None:
        return PlainKernels()
    from kronos_api.engine.kernels.compiled import CompiledKernels

    return CompiledKernels()
