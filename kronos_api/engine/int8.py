"""Linear layers in int8: weights quantised once for each output channel, rows when they come.

A row x becomes unsigned bytes q = round(127 x / max |x|) + 128, because oneDNN's kernel for signed
rows is slow. The zero point of 128 is folded into an offset of the result, and the scale of the row
is applied after the GEMM. Sums of integers are exact, so a row has the same bits in any batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, Final

import torch
from torch import Tensor

from kronos_api.engine.kernels.quantised import LARGEST, ZERO_POINT, QuantisedRows
from kronos_api.engine.linear import FEWEST_ROWS, PACKING_ROWS, pack_linear

TOO_SLOW: Final = 10
"""Time of int8 over that of float32 that only a reference kernel takes."""
TRIED: Final = (64, 512, 512)
"""Rows, K and N of the GEMM that decides whether a processor is fit for int8."""


class Int8Linear:
    """x ↦ x Wᵀ + b for quantised rows and a fixed W [N, K]; computes float32."""

    fewest_rows: ClassVar[int] = FEWEST_ROWS

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().float()
        scale = (weight.abs().amax(1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        codes = torch.round(weight / scale.unsqueeze(1)).to(torch.int8)
        prepack = torch.ops.onednn.qlinear_prepack.default
        self._packed = prepack(codes, [PACKING_ROWS, weight.shape[1]])
        self._scale = scale
        self._zero_points = torch.zeros(len(weight), dtype=torch.int32)
        self._offset = codes.sum(1, dtype=torch.int32) * scale * -ZERO_POINT
        self._bias = None if bias is None else bias.detach().float()
        self._run = torch.ops.onednn.qlinear_pointwise.default

    def __call__(self, rows: QuantisedRows) -> Tensor:
        """Return x Wᵀ + b, [R, N]."""
        out = self._multiply(rows)
        if self._bias is None:
            return out.mul_(rows.scale)
        return torch.addcmul(self._bias, out, rows.scale, out=out)

    def add(self, rows: QuantisedRows, other: Tensor) -> Tensor:
        """Return x Wᵀ + b + other."""
        out = self._multiply(rows)
        torch.addcmul(other, out, rows.scale, out=out)
        return out if self._bias is None else out.add_(self._bias)

    def _multiply(self, rows: QuantisedRows) -> Tensor:
        out: Tensor = self._run(
            rows.codes,
            1.0,
            0,
            self._packed,
            self._scale,
            self._zero_points,
            self._offset,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return out


def int8_problem(device: torch.device) -> str | None:
    """Why int8 is not used on `device`; None if its kernel is exact and not a reference kernel.

    Processors without VNNI may saturate intermediate sums, and oneDNN's reference kernel, which
    runs where no fast one does, is hundreds of times slower than float32. Only such a difference
    counts, so that all workers of a service decide alike on a busy machine.
    """
    if device.type != "cpu":
        return f"int8 has kernels for CPUs, and the device is {device}"
    rows, inputs, outputs = TRIED
    largest = torch.full((rows, inputs), 2 * ZERO_POINT - 1, dtype=torch.uint8)
    extremes = QuantisedRows(largest, torch.ones(rows, 1))
    weight = torch.ones(outputs, inputs)
    try:
        linear = Int8Linear(weight, None)
        exact = bool((linear(extremes) == LARGEST * inputs).all())
    except (AttributeError, RuntimeError) as error:
        return f"this build of PyTorch has no int8 kernel: {error}".partition("\n")[0]
    if not exact:
        return "this processor's int8 kernel saturates"
    wide, x = pack_linear(weight), torch.ones(rows, inputs)
    if _seconds(lambda: linear(extremes)) > TOO_SLOW * _seconds(lambda: wide(x)):
        return "this processor's int8 kernel is many times slower than float32"
    return None


def _seconds(run: Callable[[], object]) -> float:
    """The shortest of several calls."""
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
