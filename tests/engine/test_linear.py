"""Linear layers: near float64, and batch-invariant where forecasts rely on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kronos_api.engine import linear as linear_module
from kronos_api.engine.linear import (
    FixedRowsLinear,
    Linear,
    MKLLinear,
    OneDNNLinear,
    PlainLinear,
    pack_decode_linear,
    pack_linear,
)

Pack = Callable[[Tensor, Tensor], Linear]
Backend = type[OneDNNLinear] | type[MKLLinear] | type[PlainLinear]

onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN")
mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch has no MKL")

PHASES = [
    pytest.param(pack, dtype, id=f"{phase}-{str(dtype).removeprefix('torch.')}", marks=onednn)
    for phase, pack in {"prefill": pack_linear, "decode": pack_decode_linear}.items()
    for dtype in (torch.float32, torch.bfloat16)
]
"""The layers that forecasts run through on a CPU, by phase and dtype."""
BACKENDS = [
    pytest.param(OneDNNLinear, torch.float32, id="oneDNN-float32", marks=onednn),
    pytest.param(OneDNNLinear, torch.bfloat16, id="oneDNN-bfloat16", marks=onednn),
    pytest.param(MKLLinear, torch.float32, id="MKL-float32", marks=mkl),
    pytest.param(PlainLinear, torch.float32, id="plain-float32"),
    pytest.param(PlainLinear, torch.bfloat16, id="plain-bfloat16"),
    pytest.param(FixedRowsLinear, torch.float32, id="fixed-rows-float32"),
]
SHAPES = [(192, 64), (768, 256), (1024, 256), (256, 512), (1536, 512), (2496, 832)]
"""Weights [N, K]: projections and heads of the tiny, mini, small and base networks."""
MOST = 400
"""Rows of the largest batch."""
BATCHES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 32, 33, 63, 64, 65, 128, 129, 257, MOST]
"""Sizes at which kernels change their blocking, and those beside them."""


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def packed(pack: Pack, rows: int, columns: int, dtype: torch.dtype) -> Linear:
    weight = numbers(rows, columns, seed=1, dtype=dtype) / columns**0.5
    return pack(weight, numbers(rows, seed=2, dtype=dtype))


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int16 if x.dtype == torch.bfloat16 else torch.int32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("pack", "dtype"), PHASES)
def test_row_has_the_same_bits_alone_and_in_a_batch(
    pack: Pack, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    linear, x = packed(pack, *shape, dtype), numbers(MOST, shape[1], seed=3, dtype=dtype)
    whole = bits(linear(x))
    for size in BATCHES:
        batch = slice(MOST - size, MOST)  # another place in the batch, and other batch-mates
        assert torch.equal(bits(linear(x[batch])), whole[batch]), size


@pytest.mark.parametrize(("pack", "dtype"), PHASES)
def test_every_batch_size_gives_a_row_the_same_bits(pack: Pack, dtype: torch.dtype) -> None:
    linear, x = packed(pack, 192, 64, dtype), numbers(MOST, 64, seed=3, dtype=dtype)
    alone = bits(torch.cat([linear(row) for row in x.split(1)]))
    for size in range(1, MOST + 1):
        assert torch.equal(bits(linear(x[-size:])), alone[-size:]), size


@pytest.mark.parametrize(("pack", "dtype"), PHASES)
def test_threads_do_not_change_batch_invariance(pack: Pack, dtype: torch.dtype) -> None:
    linear, x = packed(pack, 768, 256, dtype), numbers(MOST, 256, seed=3, dtype=dtype)
    torch.set_num_threads(2)
    try:
        found = {size: bits(linear(x[:size])) for size in (1, 2, 9, 65, MOST)}
    finally:
        torch.set_num_threads(1)
    for size, batch in found.items():
        assert torch.equal(batch, found[MOST][:size]), size


@pytest.mark.parametrize(("pack", "dtype"), PHASES)
def test_fused_operations_give_a_row_the_same_bits(pack: Pack, dtype: torch.dtype) -> None:
    linear = packed(pack, 512, 256, dtype)
    x, other = (numbers(MOST, columns, seed=columns, dtype=dtype) for columns in (256, 512))
    whole = [bits(linear.silu(x)), bits(linear.add(x, other)), bits(linear.mul(x, other))]
    for size in (1, 3, 7, 64, 257):
        rows, mates = x[-size:], other[-size:]
        parts = [linear.silu(rows), linear.add(rows, mates), linear.mul(rows, mates)]
        for part, expected in zip(parts, whole, strict=True):
            assert torch.equal(bits(part), expected[-size:]), size


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_operations_are_near_float64(backend: Backend, dtype: torch.dtype, bias: bool) -> None:
    weight, x, other = (
        numbers(*shape, seed=seed, dtype=dtype)
        for seed, shape in enumerate([(96, 64), (33, 64), (33, 96)])
    )
    added = numbers(96, seed=9, dtype=dtype) if bias else None
    linear = backend(weight, added)
    exact = x.double() @ weight.double().T + (added.double() if added is not None else 0)
    near = (1e-5, 1e-4) if dtype == torch.float32 else (0.03, 0.3)
    given = x.clone(), other.clone()
    for found, expected in (
        (linear(x), exact),
        (linear.silu(x), exact * exact.sigmoid()),
        (linear.add(x, other), exact + other.double()),
        (linear.mul(x, other), exact * other.double()),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=near[0], atol=near[1])
    assert torch.equal(x, given[0])  # no operand is overwritten
    assert torch.equal(other, given[1])


@pytest.mark.parametrize("invariant", [True, False])
def test_backend_is_selected_by_phase_dtype_and_processor(
    monkeypatch: pytest.MonkeyPatch, invariant: bool
) -> None:
    """MKL's kernels serve decode steps only where they are batch-invariant."""
    narrow, wide = torch.ones(8, 8, dtype=torch.bfloat16), torch.ones(8, 8)
    monkeypatch.setattr(linear_module, "_mkl_is_batch_invariant", lambda *_: invariant)
    if torch.backends.mkldnn.is_available():
        assert isinstance(pack_linear(wide), OneDNNLinear)
        assert isinstance(pack_decode_linear(narrow), OneDNNLinear)
    if torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available():
        assert isinstance(pack_decode_linear(wide), MKLLinear if invariant else OneDNNLinear)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for pack in (pack_linear, pack_decode_linear):
        assert isinstance(pack(wide), PlainLinear)
        assert isinstance(pack(wide.to("meta")), PlainLinear)
