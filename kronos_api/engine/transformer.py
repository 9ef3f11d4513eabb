"""A stack of transformer layers laid out for decoding.

Against the plain modules: the weights of a norm are folded into the products that follow it,
query, key and value are one product, and the rotation by position is one complex product (the
rows of a head are reordered so that the two numbers of a pair lie side by side; queries and keys
are reordered alike, so their products stay what they were).

Shapes: B paths, T positions, C channels, H heads, D = C / H; rows are R = B · T.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kronos_api.engine.attention import attend, attend_both
from kronos_api.engine.kv_cache import Memory
from kronos_api.engine.linear import Linear, make_linear, make_step_linear
from kronos_api.model.layers import NORM_EPSILON, Attention, Block, RMSNorm


def shorten(x: Tensor) -> Tensor:
    """Divide each row of `x` [..., C] by its length, computed in float32.

    A norm divides by the root mean square; the √C between them is part of the weights after it.
    """
    wide = x.float()
    square: Tensor = (wide * wide).sum(-1, keepdim=True)
    short: Tensor = (wide * square.add_(x.shape[-1] * NORM_EPSILON).rsqrt_()).to(x.dtype)
    return short


def norm_weight(norm: RMSNorm) -> Tensor:
    """What is left of `norm` after `shorten`, to be multiplied into the weights that follow."""
    return norm.weight * math.sqrt(norm.weight.shape[0])


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    out: Linear
    gate: Linear
    up: Linear
    down: Linear


class Stack:
    """Transformer layers that append to a `Memory`."""

    def __init__(
        self, blocks: nn.ModuleList, positions: int, like: Tensor, *, steps: bool = False
    ) -> None:
        """Lay out `blocks` for up to `positions` positions, with device and dtype of `like`.

        `steps` says whether `step` will be called; its products have a layout of their own.
        """
        layers = [block for block in blocks if isinstance(block, Block)]
        first = layers[0].self_attn
        self.heads = first.heads
        self.width = first.q_proj.in_features
        self._layers = [_lay_out(block, like, make_linear) for block in layers]
        self._step_layers = [_lay_out(b, like, make_step_linear) for b in layers if steps]
        self._turns = _turns(first, positions).to(like.device)

    def __len__(self) -> int:
        return len(self._layers)

    def extend(self, x: Tensor, memory: Memory) -> Tensor:
        """Run T positions after those known, `x` [B, T, C] → [B, T, C]; `memory` holds them then.

        The caller advances the memory, once every layer that writes to it has run.
        """
        paths, new, _ = x.shape
        start = memory.position
        turns = self._turns[start : start + new].repeat(paths, 1, 1, 1)
        rows = x.reshape(paths * new, self.width)
        for layer, weights in enumerate(self._layers):
            qkv = self._rotated(rows, weights, turns)
            mixed = self._remember_and_attend(layer, qkv.unflatten(0, (paths, new)), memory)
            rows = self._finish(rows, mixed.reshape(paths * new, self.width), weights)
        return rows.view(paths, new, self.width)

    def step(self, x: Tensor, memories: Sequence[Memory]) -> Tensor:
        """Run one position after those known in every path of every memory: rows [R, C] → [R, C].

        The rows of one memory follow those of the one before, a row a path; as with `extend`, the
        caller advances the memories.
        """
        counts = [memory.paths for memory in memories]
        turns = self._turns[_positions(memories, counts)]
        rows = x
        for layer, weights in enumerate(self._step_layers):
            qkv = self._rotated(rows, weights, turns).unsqueeze(1)
            if len(memories) == 1:
                mixed = self._remember_and_attend(layer, qkv, memories[0])
            else:
                pairs = zip(qkv.split(counts), memories, strict=True)
                mixed = torch.cat([self._remember_and_attend(layer, *pair) for pair in pairs])
            rows = self._finish(rows, mixed.reshape(-1, self.width), weights)
        return rows

    def _rotated(self, rows: Tensor, weights: _Layer, turns: Tensor) -> Tensor:
        """Queries, keys and values of rows [R, C], rotated: [R, 3, H, D]."""
        qkv = weights.qkv(shorten(rows)).float().view(len(rows), 3, self.heads, -1, 2)
        turned = torch.view_as_real(torch.view_as_complex(qkv) * turns)
        return turned.flatten(3).to(rows.dtype)

    def _remember_and_attend(self, layer: int, qkv: Tensor, memory: Memory) -> Tensor:
        """Store keys and values of qkv [B, T, 3, H, D] and attend: [B, T, H, D]."""
        new = qkv.shape[1]
        memory.store(layer, qkv[:, :, 1:].flatten(3))
        keys, values = memory.known(layer, new)
        query = qkv[:, :, 0]
        if memory.shared is None:
            return attend(query, keys, values)
        return attend_both(query, *memory.prompt(layer), keys, values)

    def _finish(self, rows: Tensor, mixed: Tensor, weights: _Layer) -> Tensor:
        """Output projection and feed-forward layer, both added to the residual rows [R, C]."""
        rows = weights.out.add(mixed, rows)
        normal = shorten(rows)
        return weights.down.add(weights.up.times(normal, weights.gate.silu(normal)), rows)


def _positions(memories: Sequence[Memory], counts: Sequence[int]) -> list[int]:
    return [
        memory.position
        for memory, count in zip(memories, counts, strict=True)
        for _ in range(count)
    ]


def _lay_out(block: Block, like: Tensor, make: Callable[[Tensor, Tensor | None], Linear]) -> _Layer:
    attention, ffn = block.self_attn, block.ffn
    before, between = norm_weight(block.norm1), norm_weight(block.norm2)
    pairs = _pairing(attention)
    qkv = torch.cat(
        [
            attention.q_proj.weight[pairs],
            attention.k_proj.weight[pairs],
            attention.v_proj.weight,
        ]
    )
    bias = torch.cat(
        [attention.q_proj.bias[pairs], attention.k_proj.bias[pairs], attention.v_proj.bias]
    )
    return _Layer(
        qkv=make((qkv * before).to(like), bias.to(like)),
        out=make(attention.out_proj.weight.to(like), attention.out_proj.bias.to(like)),
        gate=make((ffn.w1.weight * between).to(like), None),
        up=make((ffn.w3.weight * between).to(like), None),
        down=make(ffn.w2.weight.to(like), None),
    )


def _pairing(attention: Attention) -> Tensor:
    """Row order that puts channel i of a head beside channel i + D / 2."""
    width, heads = attention.q_proj.in_features, attention.heads
    channels = torch.arange(width).view(heads, 2, -1)
    return channels.transpose(1, 2).reshape(-1)


def _turns(attention: Attention, positions: int) -> Tensor:
    """Rotation of query, key and (by nothing) value: complex64 [positions, 3, 1, D / 2]."""
    angles = attention.rotary.angles(positions)
    turn = torch.polar(torch.ones_like(angles), angles)
    return torch.stack([turn, turn, torch.ones_like(turn)], dim=1).unsqueeze(2)
