"""Attention over keys and values that lie in two places: a shared prompt and a path's own suffix.

Shapes: B paths, T new positions, H heads, D channels a head. Keys and values come as `Memory` keeps
them, [B, H, positions, D] by strides over [B, positions, H, D].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend causally; the last T of the key positions are the query's own.

    Args:
        query: [B, T, H, D].
        keys, values: [B, H, positions, D], positions ≥ T.

    Returns:
        [B, T, H, D].
    """
    new = query.shape[1]
    known = keys.shape[2] - new
    mask = None
    if new > 1 and known:
        mask = torch.ones(new, known + new, dtype=torch.bool, device=query.device).tril(known)
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        keys,
        values,
        attn_mask=mask,
        is_causal=new > 1 and not known,
    )
    return mixed.transpose(1, 2)


def attend_both(
    query: Tensor,
    shared_keys: Tensor,
    shared_values: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Attend to a prompt that all B paths share, [1, H, positions, D], and to each path's own.

    The two softmaxes are joined by their normalisers, so the prompt is never copied. The own
    positions are those appended after the prompt; with T > 1 they are the query's own T.
    """
    paths, new, heads, width = query.shape
    as_one = query.reshape(1, paths * new, heads, width)
    prompt, prompt_norm = _weighted(as_one, shared_keys, shared_values, causal=False)
    prompt = prompt.view(paths, new, heads, width)
    if not keys.shape[2]:
        return prompt
    suffix, suffix_norm = _weighted(query, keys, values, causal=new > 1)
    share = torch.sigmoid(prompt_norm.view(paths, new, heads) - suffix_norm)
    return torch.lerp(suffix, prompt, share.unsqueeze(-1).to(suffix.dtype))


def _weighted(query: Tensor, keys: Tensor, values: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Attention output [B, T, H, D] and the log of its normaliser, float32 [B, T, H]."""
    q = query.transpose(1, 2)
    if q.device.type == "cpu":
        run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        mixed, norm = run(q, keys, values, 0.0, causal)
    else:
        mixed, norm = _weighted_plainly(q, keys, values, causal)
    return mixed.transpose(1, 2).contiguous(), norm.transpose(1, 2)


def _weighted_plainly(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.softmax(scores, dim=-1).to(v.dtype) @ v, torch.logsumexp(scores, dim=-1)
