"""Transformer layers with packed weights, over a KV cache.

Unlike in the plain modules of `kronos_api.model`, the weight of a norm is folded into the linear
layer after it, query, key and value are one GEMM, and RoPE is one complex multiplication: the
channels of a head are interleaved, so that the two numbers of a pair are adjacent. Queries and
keys are interleaved alike, which leaves their dot products unchanged.

Shapes: B rows of the batch, T positions, C channels, H heads, D = C / H, R = B · T.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kronos_api.engine.kernels import choose_kernels
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.layers import PackedLayer, pack_layers
from kronos_api.engine.linear import pad_rows
from kronos_api.model.layers import Attention, Block


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
        self.kernels = choose_kernels(device, dtype)
        self._layers = pack_layers(layers, device, dtype, self.kernels, decodes=decodes)
        self._freqs_cis = _freqs_cis(attention, positions).to(device)

    def __len__(self) -> int:
        return len(self._layers.prefill)

    def prefill(self, x: Tensor, cache: KVCache) -> Tensor:
        """Run T positions after the cached ones and store their keys and values.

        The caller advances `cache.length`, once every layer that writes to the cache has run.

        Args:
            x: [B, T, C].

        Returns:
            [B, T, C].
        """
        batch, q_len, _ = x.shape
        rows = x.reshape(batch * q_len, self.width)
        return self._run(self._layers.prefill, rows, [cache], q_len).view(x.shape)

    def fill(self, x: Tensor, cache: KVCache) -> None:
        """As `prefill`, for the keys and values alone: the last layer needs no more than them."""
        batch, q_len, _ = x.shape
        rows = x.reshape(batch * q_len, self.width)
        *layers, last = self._layers.prefill
        rows = self._run(layers, rows, [cache], q_len)
        factors = self.kernels.rope(self._freqs_cis, [cache], q_len)
        self.kernels.rotate_and_store(last.qkv(rows), factors, len(layers), [cache], q_len)

    def decode(self, x: Tensor, caches: Sequence[KVCache]) -> Tensor:
        """Run one position in every row of every cache: [R, C] → [R, C].

        The rows of each cache follow those of the one before. As with `prefill`, the caller
        advances the caches.
        """
        return self._run(self._layers.decode, x, caches, 1)

    def _run(
        self, layers: list[PackedLayer], rows: Tensor, caches: Sequence[KVCache], q_len: int
    ) -> Tensor:
        kernels, count, fewest = self.kernels, len(rows), self._layers.fewest_rows
        factors = kernels.rope(self._freqs_cis, caches, q_len)
        rows = pad_rows(rows, fewest)
        padded = torch.zeros_like(rows)
        mixed = padded[:count]
        for layer, weights in enumerate(layers):
            qkv = weights.qkv(rows)[:count]
            query = kernels.rotate_and_store(qkv, factors, layer, caches, q_len)
            kernels.attend(query, layer, caches, q_len, q_len, mixed)
            rows = weights.add_feed_forward(weights.add_attention(padded, rows))
        return rows[:count]


def _freqs_cis(attention: Attention, positions: int) -> Tensor:
    """RoPE factors: complex64 [positions, D / 2]."""
    angles = attention.rotary.angles(positions)
    return torch.polar(torch.ones_like(angles), angles)
