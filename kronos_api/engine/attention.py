"""Attention over keys and values in two places: a shared prompt and each path's own suffix.

Shapes: B rows (one a sample path), q_len queries, H heads, D channels a head. Keys and values come
as `KVCache` keeps them, [B, H, positions, D] by strides over [B, positions, H, D].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend causally; the last q_len of the key positions are the queries' own.

    Args:
        query: [B, q_len, H, D].
        keys, values: [B, H, positions, D], positions ≥ q_len.

    Returns:
        [B, q_len, H, D].
    """
    q_len = query.shape[1]
    cached = keys.shape[2] - q_len
    mask = None
    if q_len > 1 and cached:
        shape = (q_len, cached + q_len)
        mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril(cached)
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        keys,
        values,
        attn_mask=mask,
        is_causal=q_len > 1 and not cached,
    )
    return mixed.transpose(1, 2)


def shared_prefix_attention(
    query: Tensor,
    prefix_keys: Tensor,
    prefix_values: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Attend to a prompt that all B rows share and to each row's own suffix.

    The two softmaxes are merged by their log-sum-exps (lse), so the prompt is never copied. The
    suffix, whose last q_len positions are the queries' own, is attended causally.

    Args:
        query: [B, q_len, H, D].
        prefix_keys, prefix_values: [1, H, positions, D].
        keys, values: [B, H, suffix positions, D]; the suffix may be empty.

    Returns:
        [B, q_len, H, D].
    """
    batch, q_len, heads, width = query.shape
    as_one = query.reshape(1, batch * q_len, heads, width)
    prefix, prefix_lse = attention_lse(as_one, prefix_keys, prefix_values, causal=False)
    prefix = prefix.view(batch, q_len, heads, width)
    if not keys.shape[2]:
        return prefix
    suffix, suffix_lse = attention_lse(query, keys, values, causal=q_len > 1)
    return merge_attention(prefix, prefix_lse.view(batch, q_len, heads), suffix, suffix_lse)


def merge_attention(left: Tensor, left_lse: Tensor, right: Tensor, right_lse: Tensor) -> Tensor:
    """Attention over two sets of positions, [..., D], from that over each and its lse [...]."""
    share = torch.sigmoid(left_lse - right_lse)
    return torch.lerp(right, left, share.unsqueeze(-1).to(right.dtype))


def attention_lse(
    query: Tensor, keys: Tensor, values: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention output [B, q_len, H, D], and the lse of its scores, float32 [B, q_len, H]."""
    q = query.transpose(1, 2)
    if q.device.type == "cpu":
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        if causal and (cached := keys.shape[2] - q.shape[2]):
            mixed, lse = run(q, keys, values, attn_mask=_later(q, cached))
        else:
            mixed, lse = run(q, keys, values, 0.0, causal)
    else:
        mixed, lse = _plain_attention_lse(q, keys, values, causal)
    return mixed.transpose(1, 2).contiguous(), lse.transpose(1, 2)


def _plain_attention_lse(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """The same by ordinary operators; every tensor is [B, H, positions, D]."""
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if causal:
        scores += _later(q, k.shape[2] - q.shape[2])
    return torch.softmax(scores, dim=-1).to(v.dtype) @ v, torch.logsumexp(scores, dim=-1)


def _later(q: Tensor, cached: int) -> Tensor:
    """Added to scores: -inf for positions after the query's own, of which `cached` come before."""
    q_len = q.shape[2]
    later = torch.full((q_len, cached + q_len), float("-inf"), device=q.device, dtype=q.dtype)
    return later.triu(cached + 1)
