"""Linear layers with fixed weights, packed once for the backend that runs their GEMMs.

The packed backends are batch-invariant: a row has the same bits alone and in any batch. Plain
`F.linear` is not.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

PACKING_ROWS = 8
"""Rows that the packed layout is chosen for: decode steps have few, and prefill does not mind."""
FEWEST_ROWS = 4
"""Rows of the smallest GEMM of oneDNN: with weights from memory, one row takes longer than four."""


class Linear(Protocol):
    """x ↦ x Wᵀ + b for x [R, K] and a fixed W [N, K].

    fewest_rows: rows that take no longer than fewer do; `pad_rows` brings x to them.
    """

    fewest_rows: ClassVar[int]

    def __call__(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b, [R, N]."""

    def silu(self, x: Tensor) -> Tensor:
        """Return SiLU(x Wᵀ + b)."""

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        """Return x Wᵀ + b + other."""

    def mul(self, x: Tensor, other: Tensor) -> Tensor:
        """Return (x Wᵀ + b) · other, element by element."""


class OneDNNLinear:
    """oneDNN's blocked layout, with the operation after the GEMM fused into its kernel."""

    fewest_rows: ClassVar[int] = FEWEST_ROWS

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKING_ROWS)
        self._bias = bias
        self._run = torch.ops.mkldnn._linear_pointwise.default
        self._run_binary = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self._run(x, self._weight, self._bias, "none", [], "")
        return out

    def silu(self, x: Tensor) -> Tensor:
        out: Tensor = self._run(x, self._weight, self._bias, "swish", [], "")
        return out

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self._run_binary(x, other, self._weight, self._bias, "add")
        return out

    def mul(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self._run_binary(x, other, self._weight, self._bias, "mul")
        return out


class MKLLinear:
    """MKL's packed layout, for the few rows of a decode step.

    On Intel's processors a call costs some 25 µs less than oneDNN's, and a decode step makes dozens
    of them; with many rows it is the slower one. Its kernels are batch-invariant there, but not on
    AMD's: one to three rows have a kernel of their own. `pack_decode_linear` checks this.
    """

    fewest_rows: ClassVar[int] = 1

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), PACKING_ROWS)
        # Of the plain weight, the operator reads nothing but the shape.
        self._shape = weight.new_empty(1).expand(weight.shape)
        self._bias = bias
        self._run = torch.ops.mkl._mkl_linear.default

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self._run(x, self._packed, self._shape, self._bias, x.shape[0])
        return out

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x), inplace=True)

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).add_(other)

    def mul(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).mul_(other)


class PlainLinear:
    """torch's ordinary operators, for devices without oneDNN. Not batch-invariant."""

    fewest_rows: ClassVar[int] = 1

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.contiguous()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x))

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x) + other

    def mul(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x) * other


class FixedRowsLinear(PlainLinear):
    """GEMMs of always `ROWS` rows, for the decode steps of a GPU.

    cuBLAS selects its kernel by the number of rows, and kernels differ in how they accumulate. With
    a fixed number, a row has the same bits in any batch. On a GPU, a GEMM of 64 rows reads the
    weights once, as one of a single row does, and takes as long.
    """

    ROWS = 64

    def __call__(self, x: Tensor) -> Tensor:
        rows = len(x)
        padded = F.pad(x, (0, 0, 0, -rows % self.ROWS))
        blocks = [F.linear(x, self._weight, self._bias) for x in padded.split(self.ROWS)]
        return (blocks[0] if len(blocks) == 1 else torch.cat(blocks))[:rows]


def pack_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Pack `weight` [N, K] and `bias` [N] for the many rows of prefill, on their device."""
    packs = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return (OneDNNLinear if packs else PlainLinear)(*_ready(weight, bias))


def pack_decode_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Pack `weight` [N, K] and `bias` [N] for the few rows of a decode step.

    Select the backend by phase (prefill or decode) and processor, never by batch size: the two
    accumulate in different orders, which would break batch invariance.
    """
    backend = _decode_backend(weight)
    return pack_linear(weight, bias) if backend is None else backend(*_ready(weight, bias))


def pack_both(weight: Tensor, bias: Tensor | None = None) -> tuple[Linear, Linear]:
    """Pack for prefill and for decode steps; where one backend serves both, it is packed once."""
    prefill, backend = pack_linear(weight, bias), _decode_backend(weight)
    return prefill, prefill if backend is None else backend(*_ready(weight, bias))


def pad_rows(x: Tensor, fewest: int) -> Tensor:
    """Append rows of zeros to `x` [R, K], so that it has at least `fewest`."""
    missing = fewest - len(x)
    return F.pad(x, (0, 0, 0, missing)) if missing > 0 else x


def _decode_backend(weight: Tensor) -> type[FixedRowsLinear] | type[MKLLinear] | None:
    """The backend of decode steps, where it is not that of prefill."""
    if weight.device.type == "cuda":
        return FixedRowsLinear
    packs = weight.device.type == "cpu" and weight.dtype == torch.float32
    suits = packs and torch.backends.mkl.is_available() and _mkl_is_batch_invariant(*weight.shape)
    return MKLLinear if suits else None


@cache
def _mkl_is_batch_invariant(rows: int, columns: int) -> bool:
    """Whether MKL gives a row the same bits in batches of 1 … 64, for weights of this shape.

    MKL selects its kernels by processor and batch size, and documents neither.
    """
    numbers = torch.Generator().manual_seed(0)
    linear = MKLLinear(torch.randn(rows, columns, generator=numbers), None)
    x = torch.randn(64, columns, generator=numbers)
    whole = linear(x)
    return all(torch.equal(linear(x[:size]), whole[:size]) for size in (*range(1, 10), 16, 17, 33))


def _ready(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.detach(), None if bias is None else bias.detach().contiguous()
