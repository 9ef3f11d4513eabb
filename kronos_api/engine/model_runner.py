"""The predictor laid out for decoding: embeddings as tables, layers as a `Stack`, two heads.

What depends on a token alone is computed once for every token: the projected pair embedding, and
the query that the dependency-aware layer makes of the s1 just chosen. That layer's keys and
values are remembered in one more layer of the `Memory`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kronos_api.engine.attention import attend, attend_both
from kronos_api.engine.kv_cache import Memory
from kronos_api.engine.linear import make_linear, make_step_linear
from kronos_api.engine.transformer import Stack, norm_weight, shorten
from kronos_api.model import Kronos
from kronos_api.model.config import DEPENDENCY_HEADS
from kronos_api.model.kronos import STAMP_SIZES


class Network:
    """One predictor checkpoint, ready to decode.

    Shapes: R rows (one a sample path), C channels, V1 and V2 tokens.
    """

    def __init__(self, model: Kronos, positions: int, like: Tensor) -> None:
        """Lay out `model` for contexts up to `positions`, with device and dtype of `like`."""
        self.stack = Stack(model.transformer, positions, like, steps=True)
        self.width = model.config.d_model
        self._like = like
        self._dependency = len(self.stack)
        self._heads = [self.stack.heads] * len(self.stack) + [DEPENDENCY_HEADS]
        pair = model.embedding
        halves = (pair.fusion_proj.weight * pair.scale).split(self.width, dim=1)
        self._s1_table = (pair.emb_s1.weight @ halves[0].T).to(like)
        self._s2_table = (pair.emb_s2.weight @ halves[1].T + pair.fusion_proj.bias).to(like)
        tables = dict(model.time_emb.named_parameters())
        self._time_tables = [tables[f"{name}_embed.weight"].to(like) for name in STAMP_SIZES]
        attention = model.dep_layer.cross_attn
        queries = pair.emb_s1.weight @ attention.q_proj.weight.T + attention.q_proj.bias
        self._queries = queries.to(like)
        self._norm = norm_weight(model.norm).to(like)
        key_value = torch.cat([attention.k_proj.weight, attention.v_proj.weight]).to(like)
        bias = torch.cat([attention.k_proj.bias, attention.v_proj.bias]).to(like)
        self._key_value = make_linear(key_value, bias)
        self._step_key_value = make_step_linear(key_value, bias)
        out, first, second = attention.out_proj, model.head.proj_s1, model.head.proj_s2
        self._out = make_step_linear(out.weight.to(like), out.bias.to(like))
        self._first = make_step_linear(first.weight.to(like), first.bias.to(like))
        weight = second.weight * norm_weight(model.dep_layer.norm)
        self._second = make_step_linear(weight.to(like), second.bias.to(like))

    def memory(self, paths: int, capacity: int) -> Memory:
        """Reserve a memory for `capacity` positions of `paths` paths."""
        return Memory.allocate(self._heads, paths, capacity, self.width, self._like)

    def times(self, stamps: Tensor) -> Tensor:
        """Embed stamps, int64 [n, 5] → [n, C]."""
        columns = zip(self._time_tables, stamps.unbind(-1), strict=True)
        total: Tensor = torch.stack([table[column] for table, column in columns]).sum(0)
        return total

    def embed(self, s1: Tensor, s2: Tensor, times: Tensor) -> Tensor:
        """Embed token pairs, int64 [...], at embedded `times` [..., C]."""
        embedded: Tensor = self._s1_table[s1] + self._s2_table[s2] + times
        return embedded

    def extend(self, x: Tensor, memory: Memory) -> Tensor:
        """Append T positions to every path of `memory`: [B, T, C] → hidden states [B, T, C]."""
        paths, new, _ = x.shape
        hidden = shorten(self.stack.extend(x, memory)) * self._norm
        pair = self._key_value(hidden.view(paths * new, self.width))
        memory.store(self._dependency, pair.view(paths, new, 2, self.width))
        memory.length += new
        return hidden

    def step(self, x: Tensor, memories: Sequence[Memory]) -> Tensor:
        """Append one position to every path of every memory: rows [R, C] → hidden [R, C]."""
        hidden = shorten(self.stack.step(x, memories)) * self._norm
        pairs = self._step_key_value(hidden).view(-1, 1, 2, self.width)
        counts = [memory.paths for memory in memories]
        for memory, pair in zip(memories, pairs.split(counts), strict=True):
            memory.store(self._dependency, pair)
            memory.length += 1
        return hidden

    def s1_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next s1: [R, C] → float32 [R, V1]."""
        return self._first(hidden).float()

    def s2_logits(self, hidden: Tensor, s1: Tensor, memories: Sequence[Memory]) -> Tensor:
        """Logits of the next s2, given each row's s1 (int64 [R]): float32 [R, V2]."""
        query = self._queries[s1].view(len(s1), 1, DEPENDENCY_HEADS, -1)
        counts = [memory.paths for memory in memories]
        parts = []
        for part, memory in zip(query.split(counts), memories, strict=True):
            keys, values = memory.known(self._dependency, 0)
            if memory.shared is None:
                parts.append(attend(part, keys, values))
            else:
                prompt = memory.prompt(self._dependency)
                parts.append(attend_both(part, *prompt, keys, values))
        mixed = torch.cat(parts).reshape(len(s1), self.width)
        return self._second(shorten(self._out.add(mixed, hidden))).float()
