"""What is computed between GEMMs, and how tokens are drawn, by torch's operators, on any device.

Shapes: R rows, one for each new position of each row of each cache, in this order. C channels, H
heads, D = C / H, K width of a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kronos_api.engine.attention import causal_attention, shared_prefix_attention
from kronos_api.engine.kernels.quantised import LARGEST, ZERO_POINT, QuantisedRows
from kronos_api.engine.kv_cache import KVCache
from kronos_api.engine.sampling import SamplingTensors, draw
from kronos_api.model.layers import NORM_EPSILON


class PlainKernels:
    """The reference for `CompiledKernels`."""

    name = "plain"

    def cache_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The type of keys and values of a model in `dtype`."""
        return torch.float32 if dtype == torch.int8 else dtype

    def rms_norm(self, x: Tensor) -> Tensor:
        """Divide each row of `x` [..., C] by its root mean square, computed in float32.

        The weight of the norm is folded into the linear layer that follows.
        """
        return F.rms_norm(x, x.shape[-1:], eps=NORM_EPSILON)

    def rope(self, freqs_cis: Tensor, caches: Sequence[KVCache], q_len: int) -> Tensor:
        """The factors of `q_len` new positions as `rotate_and_store` takes them, for all layers.

        freqs_cis: complex64 [positions, D / 2], for every position. Returns [R, 1, 1, D / 2].
        """
        positions = [cache.position + t for cache in caches for t in _steps(cache, q_len)]
        return freqs_cis[positions].view(-1, 1, 1, freqs_cis.shape[1])

    def rotate_and_store(
        self, qkv: Tensor, factors: Tensor, layer: int, caches: Sequence[KVCache], q_len: int
    ) -> Tensor:
        """Apply RoPE to queries and keys; store the keys and values of `q_len` new positions.

        Args:
            qkv: [R, 3 C], where the channels of a pair are adjacent.
            factors: of `rope`, for the same caches.

        Returns:
            Queries [R, C].
        """
        channels = qkv.shape[1] // 3
        pairs = qkv[:, : 2 * channels].float().reshape(len(qkv), 2, -1, factors.shape[-1], 2)
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * factors)
        query, keys = rotated.to(qkv.dtype).view(len(qkv), 2, channels).unbind(1)
        values = qkv[:, 2 * channels :]
        sizes = [cache.batch_size * q_len for cache in caches]
        for cache, *new in zip(caches, keys.split(sizes), values.split(sizes), strict=True):
            cache.store(layer, *(x.view(cache.batch_size, q_len, channels) for x in new))
        return query

    def attend(
        self,
        query: Tensor,
        layer: int,
        caches: Sequence[KVCache],
        q_len: int,
        stored: int,
        out: Tensor,
    ) -> None:
        """Attend causally to the cached positions and to the last `stored`, which are not counted.

        query: [R, C], of `q_len` positions of every row of every cache. out: [R, C], written to.
        """
        sizes = [cache.batch_size * q_len for cache in caches]
        for cache, *rows in zip(caches, query.split(sizes), out.split(sizes), strict=True):
            self._attend(rows[0], layer, cache, stored, rows[1])

    def _attend(self, query: Tensor, layer: int, cache: KVCache, stored: int, out: Tensor) -> None:
        heads = query.view(cache.batch_size, -1, cache.heads[layer], cache.head_width(layer))
        keys, values = cache.read(layer, stored)
        if cache.prefix is None:
            mixed = causal_attention(heads, keys, values)
        else:
            mixed = shared_prefix_attention(heads, *cache.read_prefix(layer), keys, values)
        out.copy_(mixed.reshape(query.shape))

    def draw(self, probabilities: Tensor, sampling: SamplingTensors, uniform: Tensor) -> Tensor:
        """See `sampling.draw`."""
        return draw(probabilities, sampling, uniform)

    def quantise(self, x: Tensor) -> QuantisedRows:
        """Quantise each row of float32 `x` [R, K] by its largest absolute value."""
        largest = _largest(x)
        return QuantisedRows(_codes(x, largest), largest / LARGEST)

    def quantise_normed(self, x: Tensor) -> QuantisedRows:
        """Quantise each row of `x` [R, K] divided by its root mean square.

        The division leaves the codes as they are and is applied to the scale alone.
        """
        largest = _largest(x)
        root = x.square().mean(-1, keepdim=True).add_(NORM_EPSILON).rsqrt_()
        return QuantisedRows(_codes(x, largest), root.mul_(largest).div_(LARGEST))

    def quantise_swiglu(self, gate_up: Tensor) -> QuantisedRows:
        """Quantise SiLU(gate) · up of `gate_up` [R, 2 K], which may be overwritten."""
        gate, up = gate_up.chunk(2, dim=-1)
        return self.quantise(F.silu(gate).mul_(up))


def _steps(cache: KVCache, q_len: int) -> list[int]:
    return list(range(q_len)) * cache.batch_size


def _largest(x: Tensor) -> Tensor:
    return x.abs().amax(-1, keepdim=True).clamp_min_(1e-30)


def _codes(x: Tensor, largest: Tensor) -> Tensor:
    # The conversion truncates, which rounds a positive number plus 0.5.
    return torch.mul(x, LARGEST / largest).add_(ZERO_POINT + 0.5).to(torch.uint8)
