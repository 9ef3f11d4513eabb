"""The layers as plain modules: causality, RoPE, and torch's RMS norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kronos_api.model.layers import NORM_EPSILON, Attention, Block, Rotary


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_block_is_causal() -> None:
    torch.manual_seed(0)
    block = Block(32, 4, 48, 0.0, 0.0, 0.0).eval()
    x = numbers(2, 12, 32)
    whole, part = block(x), block(x[:, :5])
    torch.testing.assert_close(whole[:, :5], part, rtol=1e-5, atol=1e-6)


def test_rope_keeps_lengths_and_depends_on_distance_alone() -> None:
    rotary = Rotary(16)
    query, key = (numbers(16, seed=seed).expand(1, 1, 20, 16) for seed in (1, 2))
    rotated, other = rotary(query), rotary(key)
    torch.testing.assert_close(rotated.norm(dim=-1), query.norm(dim=-1))
    scores = (rotated @ other.transpose(-1, -2))[0, 0]
    for distance in (0, 3, 7):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)


def test_attention_without_rope_ignores_the_order_of_earlier_positions() -> None:
    torch.manual_seed(0)
    attention = Attention(32, 4, 0.0, 0.0, rotate=False).eval()
    x = numbers(1, 6, 32)
    shuffled = x[:, [2, 0, 1, 4, 3, 5]]
    query = x[:, -1:].expand(1, 6, 32)
    torch.testing.assert_close(
        attention(query, x)[:, -1], attention(query, shuffled)[:, -1], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rms_norm_divides_by_the_root_mean_square(scale: float) -> None:
    norm, x = nn.RMSNorm(24, eps=NORM_EPSILON), numbers(5, 24) * scale
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + NORM_EPSILON).sqrt()
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-5, atol=1e-6)
