"""Attention against plain attention; a shared prefix against one copied to every path."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kronos_api.engine import attention
from kronos_api.engine.attention import causal_attention, shared_prefix_attention

HEADS, WIDTH = 4, 16
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def query(batch: int, q_len: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return numbers(batch, q_len, HEADS, WIDTH, seed=1, dtype=dtype)


def cached(batch: int, positions: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Keys or values as the KV cache holds them: [B, H, positions, D] by strides."""
    return numbers(batch, positions, HEADS, WIDTH, seed=seed, dtype=dtype).transpose(1, 2)


def plain(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal softmax attention in float64, one query at a time: [B, T, H, D]."""
    q_len, before = q.shape[1], keys.shape[2] - q.shape[1]
    out = []
    for t in range(q_len):
        k, v = (x[:, :, : before + t + 1].double() for x in (keys, values))
        scores = torch.einsum("bhd,bhpd->bhp", q[:, t].double(), k) / math.sqrt(q.shape[-1])
        out.append(torch.einsum("bhp,bhpd->bhd", scores.softmax(-1), v))
    return torch.stack(out, dim=1)


@DTYPES
@pytest.mark.parametrize(("q_len", "before"), [(1, 0), (1, 1), (1, 63), (7, 0), (7, 20), (64, 64)])
def test_attends_causally(q_len: int, before: int, dtype: torch.dtype) -> None:
    q = query(3, q_len, dtype)
    keys, values = (cached(3, before + q_len, seed, dtype) for seed in (2, 3))
    near = TOLERANCE[dtype]
    found = causal_attention(q, keys, values)
    assert (found.shape, found.dtype) == (q.shape, dtype)
    torch.testing.assert_close(found.double(), plain(q, keys, values), rtol=near, atol=near)


@DTYPES
@pytest.mark.parametrize("paths", [1, 5])
@pytest.mark.parametrize(
    ("q_len", "suffix", "prefix"),
    [(1, 0, 9), (1, 1, 1), (1, 30, 40), (1, 3, 400), (6, 6, 40), (64, 64, 300), (3, 8, 9)],
)
def test_shared_prefix_equals_a_prefix_copied_to_every_path(
    paths: int, q_len: int, suffix: int, prefix: int, dtype: torch.dtype
) -> None:
    q = query(paths, q_len, dtype)
    prefix_keys, prefix_values = (cached(1, prefix, seed, dtype) for seed in (2, 3))
    keys, values = (cached(paths, suffix, seed, dtype) for seed in (4, 5))
    found = shared_prefix_attention(q, prefix_keys, prefix_values, keys, values)
    assert (found.shape, found.dtype) == (q.shape, dtype)
    whole = (
        torch.cat([shared.expand(paths, -1, -1, -1), part], dim=2)
        for shared, part in ((prefix_keys, keys), (prefix_values, values))
    )
    near = TOLERANCE[dtype]
    torch.testing.assert_close(found.double(), plain(q, *whole), rtol=near, atol=near)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_log_sum_exp_of_large_scores_does_not_overflow(scale: float) -> None:
    q = query(2, 1) * scale
    prefix_keys, prefix_values = cached(1, 20, 2), cached(1, 20, 3)
    keys, values = cached(2, 5, 4), cached(2, 5, 5)
    found = shared_prefix_attention(q, prefix_keys, prefix_values, keys, values)
    whole = (
        torch.cat([shared.expand(2, -1, -1, -1), part], dim=2)
        for shared, part in ((prefix_keys, keys), (prefix_values, values))
    )
    torch.testing.assert_close(found.double(), plain(q, *whole), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("q_len", "causal"), [(8, True), (8, False), (5, True)])
def test_plain_operators_give_the_same_attention_and_lse(q_len: int, causal: bool) -> None:
    q, keys, values = query(3, q_len), cached(3, 8, 2), cached(3, 8, 3)
    mixed, lse = attention.attention_lse(q, keys, values, causal)
    other, other_lse = attention._plain_attention_lse(q.transpose(1, 2), keys, values, causal)
    torch.testing.assert_close(mixed, other.transpose(1, 2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, other_lse.transpose(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt", [1, 40, 400])
def test_path_has_the_same_bits_whatever_other_paths_hold(prompt: int) -> None:
    """With the number of paths unchanged: it is a parameter of the request."""
    q, keys, values = query(6, 1), cached(6, 12, 4), cached(6, 12, 5)
    prefix_keys, prefix_values = cached(1, prompt, 2), cached(1, prompt, 3)
    before = shared_prefix_attention(q, prefix_keys, prefix_values, keys, values)[2].clone()
    for x in (q, keys, values):
        x[3:] = x[3:] * 2 + 1
    after = shared_prefix_attention(q, prefix_keys, prefix_values, keys, values)[2]
    assert torch.equal(before, after)
