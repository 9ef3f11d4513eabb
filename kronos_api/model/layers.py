"""Building blocks shared by tokenizer and predictor.

Shapes: B series, T positions, C channels, H heads, D = C / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY_BASE = 10_000.0
NORM_EPSILON = 1e-5


class Rotary(nn.Module):
    """Rotary position embedding; its frequencies are a buffer because checkpoints store them."""

    inv_freq: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_width, 2).float() / head_width
        self.register_buffer("inv_freq", ROTARY_BASE**-exponents)

    def angles(self, length: int) -> Tensor:
        """Angles of positions 0 … length - 1: [length, D / 2]."""
        positions = torch.arange(length, device=self.inv_freq.device, dtype=self.inv_freq.dtype)
        return torch.outer(positions, self.inv_freq)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate `x` [B, H, T, D] by its positions; the two halves of D form the pairs."""
        angles = self.angles(x.shape[-2])
        cos, sin = angles.cos(), angles.sin()
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Multi-head causal attention of `query` over `context`, with RoPE if `rotate`."""

    def __init__(
        self, width: int, heads: int, attn_dropout: float, resid_dropout: float, rotate: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attn_dropout = attn_dropout
        self.resid_dropout = resid_dropout
        self.rotate = rotate
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.rotary = Rotary(width // heads)

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """Attend causally: `query` and `context` [B, T, C]; position t sees positions 0 … t."""
        q = self._split(self.q_proj(query))
        k = self._split(self.k_proj(context))
        v = self._split(self.v_proj(context))
        if self.rotate:
            q, k = self.rotary(q), self.rotary(k)
        dropout = self.attn_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return F.dropout(out, self.resid_dropout, self.training)


class FeedForward(nn.Module):
    """SwiGLU feed-forward layer."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., C] to [..., C]."""
        out = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return F.dropout(out, self.dropout, self.training)


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        ffn_dropout: float,
        attn_dropout: float,
        resid_dropout: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=NORM_EPSILON)
        self.self_attn = Attention(width, heads, attn_dropout, resid_dropout, rotate=True)
        self.norm2 = nn.RMSNorm(width, eps=NORM_EPSILON)
        self.ffn = FeedForward(width, hidden, ffn_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [B, T, C] to [B, T, C], causally."""
        normal = self.norm1(x)
        x = x + self.self_attn(normal, normal)
        out: Tensor = x + self.ffn(self.norm2(x))
        return out
