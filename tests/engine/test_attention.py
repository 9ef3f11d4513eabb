"""Attention against plain attention, and over a shared prompt against one that is copied."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kronos_api.engine import attention
from kronos_api.engine.attention import attend, attend_both

HEADS, WIDTH = 4, 16
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def query(paths: int, new: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return numbers(paths, new, HEADS, WIDTH, seed=1, dtype=dtype)


def cached(paths: int, positions: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Keys or values as the KV cache holds them: [B, H, positions, D] by strides."""
    return numbers(paths, positions, HEADS, WIDTH, seed=seed, dtype=dtype).transpose(1, 2)


def plain(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal softmax attention in float64, one query at a time: [B, T, H, D]."""
    new, known = q.shape[1], keys.shape[2] - q.shape[1]
    out = []
    for t in range(new):
        k, v = (x[:, :, : known + t + 1].double() for x in (keys, values))
        scores = torch.einsum("bhd,bhpd->bhp", q[:, t].double(), k) / math.sqrt(q.shape[-1])
        out.append(torch.einsum("bhp,bhpd->bhd", scores.softmax(-1), v))
    return torch.stack(out, dim=1)


@DTYPES
@pytest.mark.parametrize(("new", "known"), [(1, 0), (1, 1), (1, 63), (7, 0), (7, 20), (64, 64)])
def test_attends_causally(new: int, known: int, dtype: torch.dtype) -> None:
    q = query(3, new, dtype)
    keys, values = (cached(3, known + new, seed, dtype) for seed in (2, 3))
    near = TOLERANCE[dtype]
    found = attend(q, keys, values)
    assert (found.shape, found.dtype) == (q.shape, dtype)
    torch.testing.assert_close(found.double(), plain(q, keys, values), rtol=near, atol=near)


@DTYPES
@pytest.mark.parametrize("paths", [1, 5])
@pytest.mark.parametrize(
    ("new", "own", "prompt"),
    [(1, 0, 9), (1, 1, 1), (1, 30, 40), (1, 3, 400), (6, 6, 40), (64, 64, 300)],
)
def test_shared_prompt_equals_a_prompt_copied_to_every_path(
    paths: int, new: int, own: int, prompt: int, dtype: torch.dtype
) -> None:
    q = query(paths, new, dtype)
    shared_keys, shared_values = (cached(1, prompt, seed, dtype) for seed in (2, 3))
    keys, values = (cached(paths, own, seed, dtype) for seed in (4, 5))
    found = attend_both(q, shared_keys, shared_values, keys, values)
    assert (found.shape, found.dtype) == (q.shape, dtype)
    whole = (
        torch.cat([shared.expand(paths, -1, -1, -1), part], dim=2)
        for shared, part in ((shared_keys, keys), (shared_values, values))
    )
    near = TOLERANCE[dtype]
    torch.testing.assert_close(found.double(), plain(q, *whole), rtol=near, atol=near)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_log_sum_exp_of_large_scores_does_not_overflow(scale: float) -> None:
    q = query(2, 1) * scale
    shared_keys, shared_values = cached(1, 20, 2), cached(1, 20, 3)
    keys, values = cached(2, 5, 4), cached(2, 5, 5)
    found = attend_both(q, shared_keys, shared_values, keys, values)
    whole = (
        torch.cat([shared.expand(2, -1, -1, -1), part], dim=2)
        for shared, part in ((shared_keys, keys), (shared_values, values))
    )
    torch.testing.assert_close(found.double(), plain(q, *whole), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_operators_without_flash_attention_give_the_same(causal: bool) -> None:
    """The output, and the log-sum-exp of its scores."""
    q, keys, values = query(3, 8), cached(3, 8, 2), cached(3, 8, 3)
    mixed, lse = attention._weighted(q, keys, values, causal)
    other, other_lse = attention._weighted_plainly(q.transpose(1, 2), keys, values, causal)
    torch.testing.assert_close(mixed, other.transpose(1, 2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, other_lse.transpose(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt", [1, 40, 400])
def test_one_path_has_the_same_bits_whatever_other_paths_hold(prompt: int) -> None:
    """Of the same number of paths: that is what a forecast asks for, and never changes."""
    q, keys, values = query(6, 1), cached(6, 12, 4), cached(6, 12, 5)
    shared_keys, shared_values = cached(1, prompt, 2), cached(1, prompt, 3)
    before = attend_both(q, shared_keys, shared_values, keys, values)[2].clone()
    for x in (q, keys, values):
        x[3:] = x[3:] * 2 + 1
    after = attend_both(q, shared_keys, shared_values, keys, values)[2]
    assert torch.equal(before, after)
