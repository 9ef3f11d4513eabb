"""The model with packed weights: embeddings as tables, a `Transformer`, and two heads.

What depends on a token alone is computed once for every token: the projected pair embedding, and
the query that the dependency-aware layer makes of the sampled s1. That layer's keys and values are
one more layer of the `KVCache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from kronos_api.engine.kv_cache import KVCache, cache_bytes
from kronos_api.engine.kv_memory import KVMemory
from kronos_api.engine.linear import Linear, pack_both, pack_decode_linear
from kronos_api.engine.transformer import Transformer
from kronos_api.model import Kronos
from kronos_api.model.config import DEPENDENCY_HEADS
from kronos_api.model.kronos import TIME_FEATURE_SIZES


class ModelRunner:
    """One model checkpoint, ready to prefill and decode.

    Shapes: R rows (one a sample path), C channels, V1 and V2 tokens.
    """

    def __init__(
        self,
        model: Kronos,
        positions: int,
        memory: KVMemory,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Pack `model` for contexts of up to `positions` candles, with caches in `memory`.

        dtype: torch.int8 is for the layers of the transformer; all else is float32 then.
        """
        self.device = torch.device(device)
        self.memory = memory
        self.dtype = torch.float32 if dtype == torch.int8 else dtype
        self.width = model.config.d_model
        self._transformer = Transformer(
            model.transformer, positions, device=device, dtype=dtype, decodes=True
        )
        self.kernels = self._transformer.kernels
        self._cache_dtype = self.kernels.cache_dtype(dtype)
        self._dependency = len(self._transformer)
        self._heads = [self._transformer.heads] * self._dependency + [DEPENDENCY_HEADS]
        self._norm = self._to(model.norm.weight)
        self._embed_tokens(model)
        self._pack_dependency_layer(model)
        first, second = model.head.proj_s1, model.head.proj_s2
        # The norm before the second head is folded into its weight.
        second_weight = second.weight * model.dep_layer.norm.weight
        self._s1_head = self._pack_for_decode(first.weight, first.bias)
        self._s2_head = self._pack_for_decode(second_weight, second.bias)

    def allocate_cache(self, batch_size: int, capacity: int) -> KVCache:
        """Reserve `capacity` positions of `batch_size` rows."""
        return KVCache.allocate(
            self._heads,
            batch_size,
            capacity,
            self.width,
            self.memory,
            device=self.device,
            dtype=self._cache_dtype,
        )

    def cache_bytes(self, positions: int, prefix: int = 0) -> int:
        """Bytes of keys and values of `positions` over all rows, and of a shared prefix."""
        layers = len(self._heads)
        own = cache_bytes(layers, positions, self.width, self._cache_dtype)
        return own + cache_bytes(layers, prefix, self.width, self.dtype)

    def embed_times(self, time_features: Tensor) -> Tensor:
        """Embed time features, int64 [n, 5] → [n, C]."""
        return F.embedding_bag(time_features + self._time_starts, self._time_table, mode="sum")

    def embed(self, s1: Tensor, s2: Tensor, times: Tensor) -> Tensor:
        """Embed token pairs, int64 [...], at embedded `times` [..., C]."""
        return F.embedding(s1, self._s1_table) + F.embedding(s2, self._s2_table) + times

    def prefill(self, x: Tensor, cache: KVCache) -> Tensor:
        """Append T positions to every row of `cache`: [B, T, C] → hidden states [B, T, C]."""
        batch, q_len, _ = x.shape
        hidden = self.kernels.rms_norm(self._transformer.prefill(x, cache)) * self._norm
        keys_values = self._keys_values(hidden.view(batch * q_len, self.width))
        cache.store(self._dependency, *keys_values.view(batch, q_len, 2, self.width).unbind(2))
        cache.length += q_len
        return hidden

    def decode(self, x: Tensor, caches: Sequence[KVCache]) -> Tensor:
        """Append one position to every row of every cache: rows [R, C] → hidden [R, C]."""
        hidden = self.kernels.rms_norm(self._transformer.decode(x, caches)) * self._norm
        keys_values = self._decode_keys_values(hidden).view(-1, 1, 2, self.width)
        sizes = [cache.batch_size for cache in caches]
        for cache, part in zip(caches, keys_values.split(sizes), strict=True):
            cache.store(self._dependency, *part.unbind(2))
            cache.length += 1
        return hidden

    def s1_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next s1: [R, C] → float32 [R, V1]."""
        return self._s1_head(hidden).float()

    def s2_logits(self, hidden: Tensor, s1: Tensor, caches: Sequence[KVCache]) -> Tensor:
        """Logits of the next s2, given each row's s1 (int64 [R]): float32 [R, V2]."""
        query = F.embedding(s1, self._queries)
        mixed = torch.empty_like(query)
        self.kernels.attend(query, self._dependency, caches, 1, 0, mixed)
        return self._s2_head(self.kernels.rms_norm(self._out.add(mixed, hidden))).float()

    def _embed_tokens(self, model: Kronos) -> None:
        """Tables of every token's and every time feature's embedding."""
        pair = model.embedding
        halves = (pair.fusion_proj.weight * pair.scale).split(self.width, dim=1)
        self._s1_table = self._to(pair.emb_s1.weight @ halves[0].T)
        self._s2_table = self._to(pair.emb_s2.weight @ halves[1].T + pair.fusion_proj.bias)
        tables = model.time_emb.state_dict()
        parts = [tables[f"{name}_embed.weight"] for name in TIME_FEATURE_SIZES]
        self._time_table = self._to(torch.cat(parts))
        starts = accumulate([len(part) for part in parts[:-1]], initial=0)
        self._time_starts = torch.tensor(list(starts), device=self.device)

    def _pack_dependency_layer(self, model: Kronos) -> None:
        attention = model.dep_layer.cross_attn
        queries = model.embedding.emb_s1.weight @ attention.q_proj.weight.T + attention.q_proj.bias
        self._queries = self._to(queries)
        weight = self._to(torch.cat([attention.k_proj.weight, attention.v_proj.weight]))
        bias = self._to(torch.cat([attention.k_proj.bias, attention.v_proj.bias]))
        self._keys_values, self._decode_keys_values = pack_both(weight, bias)
        self._out = self._pack_for_decode(attention.out_proj.weight, attention.out_proj.bias)

    def _pack_for_decode(self, weight: Tensor, bias: Tensor) -> Linear:
        return pack_decode_linear(self._to(weight), self._to(bias))

    def _to(self, weight: Tensor) -> Tensor:
        return weight.to(self.device, self.dtype)
