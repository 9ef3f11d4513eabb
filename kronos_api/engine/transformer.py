"""Transformer layers with packed weights, over a KV cache.

Unlike in the plain modules of `kronos_api.model`, the weight of a norm is folded into the linear
layer after it, query, key and value are one GEMM, and RoPE is one complex multiplication: the
channels of a head are interleaved, so that the two numbers of a pair are adjacent. Queries and
keys are interleaved alike, which leaves their dot products unchanged.

Shapes: B rows of the batch, T positions, C channels, H heads, D = C / H, R = B · T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kronos_api.engine.attention import causal_attention, shared_prefix_attention
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.linear import Linear, pack_decode_linear, pack_linear
from kronos_api.model.layers import NORM_EPSILON, Attention, Block


def rms_norm(x: Tensor) -> Tensor:
    """Divide each row of `x` [..., C] by its root mean square, computed in float32.

    The weight of the norm is folded into the linear layer that follows.
    """
    return F.rms_norm(x, x.shape[-1:], eps=NORM_EPSILON)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    out: Linear
    gate: Linear
    up: Linear
    down: Linear


class Transformer:
    """Transformer layers that append to a `KVCache`."""

    def __init__(
        self,
        blocks: nn.ModuleList,
        positions: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        decodes: bool = False,
    ) -> None:
        """Pack `blocks` for up to `positions` positions.

        decodes: whether `decode` will be called, whose GEMMs have packed weights of their own.
        """
        layers = [block for block in blocks if isinstance(block, Block)]
        attention = layers[0].self_attn
        self.heads = attention.heads
        self.width = attention.q_proj.in_features
        self._layers = [_pack_weights(block, pack_linear, device, dtype) for block in layers]
        self._decode_layers = [
            _pack_weights(block, pack_decode_linear, device, dtype) for block in layers if decodes
        ]
        self._freqs_cis = _freqs_cis(attention, positions).to(device)

    def __len__(self) -> int:
        return len(self._layers)

    def prefill(self, x: Tensor, cache: KVCache) -> Tensor:
        """Run T positions after the cached ones and store their keys and values.

        The caller advances `cache.length`, once every layer that writes to the cache has run.

        Args:
            x: [B, T, C].

        Returns:
            [B, T, C].
        """
        batch, q_len, _ = x.shape
        start = cache.position
        freqs_cis = self._freqs_cis[start : start + q_len].repeat(batch, 1, 1, 1)
        rows = x.reshape(batch * q_len, self.width)
        for layer, weights in enumerate(self._layers):
            qkv = self._qkv(rows, weights, freqs_cis)
            mixed = self._attend(layer, qkv.unflatten(0, (batch, q_len)), cache)
            rows = self._out_and_ffn(rows, mixed.reshape(batch * q_len, self.width), weights)
        return rows.view(batch, q_len, self.width)

    def decode(self, x: Tensor, caches: Sequence[KVCache]) -> Tensor:
        """Run one position in every row of every cache: [R, C] → [R, C].

        The rows of each cache follow those of the one before. As with `prefill`, the caller
        advances the caches.
        """
        sizes = [cache.batch_size for cache in caches]
        freqs_cis = self._freqs_cis[_positions(caches)]
        rows = x
        for layer, weights in enumerate(self._decode_layers):
            qkv = self._qkv(rows, weights, freqs_cis).unsqueeze(1)
            if len(caches) == 1:
                mixed = self._attend(layer, qkv, caches[0])
            else:
                pairs = zip(qkv.split(sizes), caches, strict=True)
                mixed = torch.cat([self._attend(layer, *pair) for pair in pairs])
            rows = self._out_and_ffn(rows, mixed.reshape(-1, self.width), weights)
        return rows

    def _qkv(self, rows: Tensor, weights: _Layer, freqs_cis: Tensor) -> Tensor:
        """Queries, keys and values of rows [R, C] after RoPE: [R, 3, H, D]."""
        qkv = weights.qkv(rms_norm(rows)).float().view(len(rows), 3, self.heads, -1, 2)
        rotated = torch.view_as_real(torch.view_as_complex(qkv) * freqs_cis)
        return rotated.flatten(3).to(rows.dtype)

    def _attend(self, layer: int, qkv: Tensor, cache: KVCache) -> Tensor:
        """Store keys and values of qkv [B, q_len, 3, H, D] and attend: [B, q_len, H, D]."""
        cache.store(layer, qkv[:, :, 1:].flatten(3))
        keys, values = cache.read(layer, qkv.shape[1])
        query = qkv[:, :, 0]
        if cache.prefix is None:
            return causal_attention(query, keys, values)
        return shared_prefix_attention(query, *cache.read_prefix(layer), keys, values)

    def _out_and_ffn(self, rows: Tensor, mixed: Tensor, weights: _Layer) -> Tensor:
        """Output projection and feed-forward layer, both added to the residual rows [R, C]."""
        rows = weights.out.add(mixed, rows)
        normal = rms_norm(rows)
        return weights.down.add(weights.up.mul(normal, weights.gate.silu(normal)), rows)


def _positions(caches: Sequence[KVCache]) -> list[int]:
    """Position of the next token of every row."""
    return [cache.position for cache in caches for _ in range(cache.batch_size)]


def _pack_weights(
    block: Block,
    pack: Callable[[Tensor, Tensor | None], Linear],
    device: torch.device | str,
    dtype: torch.dtype,
) -> _Layer:
    """Pack one layer, with the weights of its norms folded in."""

    def packed(weight: Tensor, bias: Tensor | None = None) -> Linear:
        return pack(weight.to(device, dtype), None if bias is None else bias.to(device, dtype))

    attention, ffn = block.self_attn, block.ffn
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    order = _interleave(attention)
    qkv = torch.cat([q.weight[order], k.weight[order], v.weight]) * block.norm1.weight
    return _Layer(
        qkv=packed(qkv, torch.cat([q.bias[order], k.bias[order], v.bias])),
        out=packed(attention.out_proj.weight, attention.out_proj.bias),
        gate=packed(ffn.w1.weight * block.norm2.weight),
        up=packed(ffn.w3.weight * block.norm2.weight),
        down=packed(ffn.w2.weight),
    )


def _interleave(attention: Attention) -> Tensor:
    """Row order that puts channel i of a head next to channel i + D / 2."""
    width, heads = attention.q_proj.in_features, attention.heads
    channels = torch.arange(width).view(heads, 2, -1)
    return channels.transpose(1, 2).reshape(-1)


def _freqs_cis(attention: Attention, positions: int) -> Tensor:
    """RoPE factors of query and key, and ones for the value: complex64 [positions, 3, 1, D / 2]."""
    angles = attention.rotary.angles(positions)
    factors = torch.polar(torch.ones_like(angles), angles)
    return torch.stack([factors, factors, torch.ones_like(factors)], dim=1).unsqueeze(2)
