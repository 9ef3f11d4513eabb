"""The linear part of one transformer layer, with packed weights, in floating point or int8.

The weights of the layer's norms are folded into the linear layers after them. Shapes: R rows, C
channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kronos_api.engine.int8 import Int8Linear
from kronos_api.engine.kernels.plain import PlainKernels
from kronos_api.engine.linear import Linear, pack_both, pack_linear
from kronos_api.model.layers import Attention, Block


class PackedLayer(Protocol):
    """What a layer computes of each row by itself, which is all but attention."""

    def qkv(self, rows: Tensor) -> Tensor:
        """Queries, keys and values of the normed rows, before RoPE: [R, C] → [R, 3 C]."""

    def add_attention(self, mixed: Tensor, rows: Tensor) -> Tensor:
        """Project the output of attention, [R, C], and add it to `rows` [R, C]."""

    def add_feed_forward(self, rows: Tensor) -> Tensor:
        """Add the feed-forward layer of the normed rows to `rows` [R, C]."""


@dataclass(frozen=True, slots=True)
class FloatLayer:
    """A layer in float32 or bfloat16."""

    kernels: PlainKernels
    qkv_linear: Linear
    out: Linear
    gate: Linear
    up: Linear
    down: Linear

    def qkv(self, rows: Tensor) -> Tensor:
        """See `PackedLayer`."""
        return self.qkv_linear(self.kernels.rms_norm(rows))

    def add_attention(self, mixed: Tensor, rows: Tensor) -> Tensor:
        """See `PackedLayer`."""
        return self.out.add(mixed, rows)

    def add_feed_forward(self, rows: Tensor) -> Tensor:
        """See `PackedLayer`."""
        normal = self.kernels.rms_norm(rows)
        return self.down.add(self.up.mul(normal, self.gate.silu(normal)), rows)


@dataclass(frozen=True, slots=True)
class Int8Layer:
    """A layer with int8 weights; rows between its linear layers are float32."""

    kernels: PlainKernels
    qkv_linear: Int8Linear
    out: Int8Linear
    gate_up: Int8Linear
    down: Int8Linear

    def qkv(self, rows: Tensor) -> Tensor:
        """See `PackedLayer`."""
        return self.qkv_linear(self.kernels.quantise_normed(rows))

    def add_attention(self, mixed: Tensor, rows: Tensor) -> Tensor:
        """See `PackedLayer`."""
        return self.out.add(self.kernels.quantise(mixed), rows)

    def add_feed_forward(self, rows: Tensor) -> Tensor:
        """See `PackedLayer`."""
        gate_up = self.gate_up(self.kernels.quantise_normed(rows))
        return self.down.add(self.kernels.quantise_swiglu(gate_up), rows)


@dataclass(frozen=True, slots=True)
class PackedLayers:
    """All layers of a transformer, packed for prefill and for decode steps.

    fewest_rows: see `Linear`; of decode steps.
    """

    prefill: list[PackedLayer]
    decode: list[PackedLayer]
    fewest_rows: int


def pack_layers(
    blocks: list[Block],
    device: torch.device | str,
    dtype: torch.dtype,
    kernels: PlainKernels,
    *,
    decodes: bool,
) -> PackedLayers:
    """Pack `blocks` in `dtype`; torch.int8 gives `Int8Layer`."""
    if dtype == torch.int8:
        int8 = [_pack_int8(block, kernels) for block in blocks]
        return PackedLayers(int8, int8, Int8Linear.fewest_rows)
    pairs = [_pack_float(block, device, dtype, kernels, decodes=decodes) for block in blocks]
    prefill, decode = zip(*pairs, strict=True)
    return PackedLayers(list(prefill), list(decode), decode[0].qkv_linear.fewest_rows)


def _pack_float(
    block: Block,
    device: torch.device | str,
    dtype: torch.dtype,
    kernels: PlainKernels,
    *,
    decodes: bool,
) -> tuple[FloatLayer, FloatLayer]:
    """The layer for prefill and for decode steps."""

    def packed(weight: Tensor, bias: Tensor | None = None) -> tuple[Linear, Linear]:
        weight = weight.to(device, dtype)
        bias = None if bias is None else bias.to(device, dtype)
        return pack_both(weight, bias) if decodes else (pack_linear(weight, bias),) * 2

    weights = _folded(block)
    pairs = (
        packed(weights.qkv, weights.qkv_bias),
        packed(weights.out, weights.out_bias),
        packed(weights.gate),
        packed(weights.up),
        packed(weights.down),
    )
    prefill, decode = zip(*pairs, strict=True)
    return FloatLayer(kernels, *prefill), FloatLayer(kernels, *decode)


def _pack_int8(block: Block, kernels: PlainKernels) -> PackedLayer:
    weights = _folded(block)
    return Int8Layer(
        kernels=kernels,
        qkv_linear=Int8Linear(weights.qkv, weights.qkv_bias),
        out=Int8Linear(weights.out, weights.out_bias),
        gate_up=Int8Linear(torch.cat([weights.gate, weights.up]), None),
        down=Int8Linear(weights.down, None),
    )


@dataclass(frozen=True, slots=True)
class _Folded:
    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


def _folded(block: Block) -> _Folded:
    """Weights of one block with those of its norms folded in, and heads interleaved for RoPE."""
    attention, ffn = block.self_attn, block.ffn
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    order = _interleave(attention)
    return _Folded(
        qkv=torch.cat([q.weight[order], k.weight[order], v.weight]) * block.norm1.weight,
        qkv_bias=torch.cat([q.bias[order], k.bias[order], v.bias]),
        out=attention.out_proj.weight,
        out_bias=attention.out_proj.bias,
        gate=ffn.w1.weight * block.norm2.weight,
        up=ffn.w3.weight * block.norm2.weight,
        down=ffn.w2.weight,
    )


def _interleave(attention: Attention) -> Tensor:
    """Row order that puts channel i of a head next to channel i + D / 2."""
    width, heads = attention.q_proj.in_features, attention.heads
    channels = torch.arange(width).view(heads, 2, -1)
    return channels.transpose(1, 2).reshape(-1)
