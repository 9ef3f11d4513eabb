"""The same as `plain`, by loops that Numba compiles, for float32 on a CPU.

A forecast has other bits than with the plain kernels, in the last places of its logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from kronos_api.engine.attention import attention_lse, merge_attention
from kronos_api.engine.kernels import loops
from kronos_api.engine.kernels.plain import PlainKernels
from kronos_api.engine.kernels.quantised import QuantisedRows
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.sampling import SamplingTensors
from kronos_api.model.layers import NORM_EPSILON

QUERIES: Final = 64
"""Queries of one block of causal attention."""


class CompiledKernels(PlainKernels):
    """Attention to a prompt that paths share stays torch's."""

    name = "compiled"

    def cache_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """See `PlainKernels`. Half of the bytes, which is half of the time of attention."""
        return torch.float16 if dtype == torch.int8 else dtype

    def rms_norm(self, x: Tensor) -> Tensor:
        """See `PlainKernels`."""
        out, width = torch.empty_like(x), x.shape[-1]
        rows, normal = x.numpy().reshape(-1, width), out.numpy().reshape(-1, width)
        loops.rms_norm(rows, np.float32(NORM_EPSILON), normal)
        return out

    def rope(self, freqs_cis: Tensor, caches: Sequence[KVCache], q_len: int) -> Tensor:
        """Cosines and sines of every position, of which the loops read those that they need."""
        del caches, q_len
        return torch.view_as_real(freqs_cis)

    def rotate_and_store(
        self, qkv: Tensor, factors: Tensor, layer: int, caches: Sequence[KVCache], q_len: int
    ) -> Tensor:
        """See `PlainKernels`."""
        channels = qkv.shape[1] // 3
        query = torch.empty(len(qkv), channels)
        every, source, target, row = factors.numpy(), qkv.numpy(), query.numpy(), 0
        for cache in caches:
            rows, at = slice(row, row + cache.batch_size * q_len), cache.position
            cache.check_capacity(q_len)
            loops.rotate_and_store(
                source[rows].reshape(cache.batch_size, q_len, 3, channels),
                every[at : at + q_len],
                target[rows].reshape(cache.batch_size, q_len, channels),
                cache.arrays[layer],
                cache.length,
            )
            row = rows.stop
        return query

    def _attend(self, query: Tensor, layer: int, cache: KVCache, stored: int, out: Tensor) -> None:
        if len(query) == cache.batch_size:
            self._attend_one(query, layer, cache, stored, out)
        elif cache.batch_size > 1 or cache.prefix is not None:
            super()._attend(query, layer, cache, stored, out)
        else:
            self._attend_in_blocks(query, layer, cache, stored, out)

    def _attend_in_blocks(
        self, query: Tensor, layer: int, cache: KVCache, stored: int, out: Tensor
    ) -> None:
        """Attend with many queries of one row: few positions of a block are masked."""
        heads, width = cache.heads[layer], cache.head_width(layer)
        keys, values = (part[0].float() for part in cache.read(layer, stored))
        by_head, mixed = (x.view(-1, heads, width).transpose(0, 1) for x in (query, out))
        before, scale = keys.shape[1] - len(query), np.float32(width**-0.5)
        for first in range(0, len(query), QUERIES):
            block = by_head[:, first : first + QUERIES]
            seen = before + first + block.shape[1]
            scores = torch.bmm(block, keys[:, :seen].transpose(1, 2))
            loops.causal_softmax(scores.numpy(), before + first, scale)
            mixed[:, first : first + QUERIES] = torch.bmm(scores, values[:, :seen])

    def _attend_one(
        self, query: Tensor, layer: int, cache: KVCache, stored: int, out: Tensor
    ) -> None:
        """Attend with one query a row, [B, C]; write to `out` [B, C]."""
        batch, heads, width = cache.batch_size, cache.heads[layer], cache.head_width(layer)
        split = query.view(batch, heads, width)
        length = cache.length + stored
        lse = np.empty((batch, heads), np.float32)
        if length:
            loops.attend(split.numpy(), cache.arrays[layer], length, out.numpy(), lse)
        if cache.prefix is None:
            return
        prefix, prefix_lse = attention_lse(
            split.unsqueeze(0), *cache.read_prefix(layer), causal=False
        )
        if length:
            suffix = out.view(batch, heads, width)
            prefix = merge_attention(prefix[0], prefix_lse[0], suffix, torch.from_numpy(lse))
        out.copy_(prefix.reshape(out.shape))

    def draw(self, probabilities: Tensor, sampling: SamplingTensors, uniform: Tensor) -> Tensor:
        """See `PlainKernels`, which draws the same tokens."""
        ascending, tokens = probabilities.numpy(), torch.empty(len(uniform), dtype=torch.int64)
        if sampling.any_top_k or sampling.any_top_p:
            ascending = np.sort(ascending, axis=-1)
        loops.draw(
            probabilities.numpy(),
            ascending,
            sampling.top_k.numpy(),
            sampling.top_p.numpy(),
            uniform.contiguous().numpy(),
            tokens.numpy(),
        )
        return tokens

    def quantise(self, x: Tensor) -> QuantisedRows:
        """See `PlainKernels`."""
        rows = _empty_rows(*x.shape)
        loops.quantise(x.numpy(), rows.codes.numpy(), rows.scale.numpy().reshape(-1))
        return rows

    def quantise_normed(self, x: Tensor) -> QuantisedRows:
        """See `PlainKernels`."""
        rows = _empty_rows(*x.shape)
        epsilon, scale = np.float32(NORM_EPSILON), rows.scale.numpy().reshape(-1)
        loops.quantise_normed(x.numpy(), epsilon, rows.codes.numpy(), scale)
        return rows

    def quantise_swiglu(self, gate_up: Tensor) -> QuantisedRows:
        """See `PlainKernels`."""
        rows = _empty_rows(len(gate_up), gate_up.shape[1] // 2)
        scale = rows.scale.numpy().reshape(-1)
        loops.quantise_swiglu(gate_up.numpy(), rows.codes.numpy(), scale)
        return rows


def _empty_rows(count: int, width: int) -> QuantisedRows:
    return QuantisedRows(torch.empty(count, width, dtype=torch.uint8), torch.empty(count, 1))
