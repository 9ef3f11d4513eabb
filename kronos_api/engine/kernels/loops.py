"""Loops over single rows, compiled by Numba. Imported only where Numba is installed.

Each row is computed by itself and in the same order whatever the number of rows, which makes all
loops batch-invariant. They release the GIL and run on one thread.

Shapes: R rows, C channels, H heads, D = C / H, B rows of a cache, K and N widths of linear layers.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import njit

from kronos_api.engine.kernels.numbers import (
    F32,
    LOWEST,
    OPTIONS,
    SUMS,
    bits_of,
    exp,
    from_bits,
    load,
    ordered,
    stored,
)

NUMBERS: Final = "7afd8650de651a62"
"""SHA-256 of numbers.py, its first half: a change there is one of this file for Numba's cache."""


@njit(fastmath=SUMS, **OPTIONS)
def attend(query: Any, cache: Any, length: Any, out: Any, lse: Any) -> None:
    """Attend to the first `length` positions of each row of `cache`.

    All heads of a position are read together, so that memory is read in order.

    query: [B, H, D]. cache: [B, 2, capacity, C], keys and values, float32 or bits of float16. out:
    [B, C]. lse: [B, H].
    """
    batch, heads, width = query.shape
    weights = np.empty((heads, length), np.float32)
    scale = F32(1.0 / math.sqrt(width))
    for b in range(batch):
        keys, values, mixed = cache[b, 0], cache[b, 1], out[b]
        for p in range(length):
            row = keys[p]
            for h in range(heads):
                score = F32(0)
                for d in range(width):
                    score += query[b, h, d] * load(row[h * width + d])
                weights[h, p] = score * scale
        for h in range(heads):
            top = LOWEST
            for p in range(length):
                top = max(top, ordered(weights[h, p]))
            largest: Any = from_bits(ordered(from_bits(top)))
            # NaN or infinity times zero is NaN: a score that is not finite fails the row.
            total = F32(0)
            for p in range(length):
                weight = exp(weights[h, p] - largest) + weights[h, p] * F32(0)
                weights[h, p] = weight
                total += weight
            lse[b, h] = largest + np.log(total)
            for p in range(length):
                weights[h, p] /= total
        mixed[:] = 0
        for p in range(length):
            row = values[p]
            for h in range(heads):
                weight = weights[h, p]
                for d in range(width):
                    mixed[h * width + d] += weight * load(row[h * width + d])


@njit(fastmath=SUMS, **OPTIONS)
def causal_softmax(scores: Any, before: Any, scale: Any) -> None:
    """Turn scores [H, q_len, positions] to weights; query i sees `before` + i + 1 positions."""
    heads, count, positions = scores.shape
    for h in range(heads):
        for i in range(count):
            row, seen = scores[h, i], before + i + 1
            top = LOWEST
            for p in range(seen):
                top = max(top, ordered(row[p]))
            largest: Any = from_bits(ordered(from_bits(top)))
            total = F32(0)
            for p in range(seen):
                weight = exp((row[p] - largest) * scale) + row[p] * F32(0)
                row[p] = weight
                total += weight
            for p in range(seen):
                row[p] /= total
            for p in range(seen, positions):
                row[p] = F32(0)


@njit(fastmath={"contract"}, **OPTIONS)
def rotate_and_store(qkv: Any, factors: Any, query: Any, cache: Any, start: Any) -> None:
    """Apply RoPE to queries and keys; write queries to `query`, keys and values to `cache`.

    The channels of a pair are adjacent.

    qkv: [B, q_len, 3, C]. factors: cosines and sines, [q_len, D / 2, 2]. query: [B, q_len, C].
    cache: [B, 2, capacity, C], written from position `start`, float32 or bits of float16.
    """
    batch, count, _, channels = qkv.shape
    for b in range(batch):
        for t in range(count):
            _rotate(qkv[b, t, 0], factors[t], query[b, t])
            _rotate(qkv[b, t, 1], factors[t], cache[b, 0, start + t])
            source, target = qkv[b, t, 2], cache[b, 1, start + t]
            for c in range(channels):
                target[c] = stored(source[c], target)


@njit(fastmath={"contract"}, **OPTIONS)
def _rotate(source: Any, factors: Any, target: Any) -> None:
    pairs = len(factors)
    for h in range(len(source) // (2 * pairs)):
        for i in range(pairs):
            at = 2 * (h * pairs + i)
            cosine, sine = factors[i, 0], factors[i, 1]
            x, y = source[at], source[at + 1]
            target[at] = stored(x * cosine - y * sine, target)
            target[at + 1] = stored(x * sine + y * cosine, target)


@njit(fastmath=SUMS, **OPTIONS)
def rms_norm(x: Any, epsilon: Any, out: Any) -> None:
    """Divide each row of `x` [R, C] by its root mean square; write to `out` [R, C]."""
    for r in range(len(x)):
        inverse = _inverse_rms(x[r], epsilon)
        for c in range(x.shape[1]):
            out[r, c] = x[r, c] * inverse


@njit(fastmath=SUMS, **OPTIONS)
def _inverse_rms(row: Any, epsilon: Any) -> Any:
    total = F32(0)
    for c in range(len(row)):
        total += row[c] * row[c]
    return F32(1.0) / np.sqrt(total / F32(len(row)) + epsilon)


@njit(**OPTIONS)
def draw(
    probabilities: Any, ascending: Any, top_k: Any, top_p: Any, uniform: Any, tokens: Any
) -> None:
    """Draw one token a row, as `sampling.draw` does: sums are in float64 and in order.

    probabilities, and the same `ascending`: [R, V]. top_k, top_p, uniform, tokens: [R].
    """
    size = probabilities.shape[1]
    for r in range(len(tokens)):
        row, smallest = probabilities[r], _smallest_kept(ascending[r], top_k[r], top_p[r])
        total = 0.0
        for token in range(size):
            if row[token] >= smallest:
                total += row[token]
        target = min(uniform[r] * total, np.nextafter(total, 0.0))
        cumulative, tokens[r] = 0.0, size
        for token in range(size):
            if row[token] >= smallest:
                cumulative += row[token]
                if cumulative > target:
                    tokens[r] = token
                    break


@njit(**OPTIONS)
def _smallest_kept(ascending: Any, top_k: Any, top_p: Any) -> Any:
    """The smallest probability of a row, sorted, that top_k and then top_p keep."""
    size = len(ascending)
    smallest = ascending[max(size - top_k, 0)] if top_k > 0 else F32(0)
    if top_p >= 1:
        return smallest
    total = 0.0
    for at in range(size - 1, -1, -1):
        if ascending[at] >= smallest:
            total += ascending[at]
    last, cumulative = size - 1, 0.0 + ascending[size - 1]
    while last > 0 and cumulative <= total * top_p:
        last -= 1
        cumulative += ascending[last]
    return max(smallest, ascending[last])


@njit(fastmath=SUMS, **OPTIONS)
def _quantise_row(x: Any, codes: Any) -> Any:
    """Write the codes of one row; returns its largest absolute value, or NaN if one is NaN.

    The bits of positive numbers have their order, those of NaN are above all.
    """
    top: Any = bits_of(F32(1e-30))
    for c in range(len(x)):
        top = max(top, bits_of(x[c]) & np.int32(0x7FFFFFFF))
    largest: Any = from_bits(top)
    inverse = F32(127.0) / largest
    for c in range(len(x)):
        codes[c] = np.uint8(np.int32(x[c] * inverse + F32(128.5)))
    return largest


@njit(fastmath=SUMS, **OPTIONS)
def quantise(x: Any, codes: Any, scale: Any) -> None:
    """Quantise each row of `x` [R, K] to `codes` uint8 [R, K] and `scale` [R]."""
    for r in range(len(x)):
        scale[r] = _quantise_row(x[r], codes[r]) / F32(127.0)


@njit(fastmath=SUMS, **OPTIONS)
def quantise_normed(x: Any, epsilon: Any, codes: Any, scale: Any) -> None:
    """As `quantise`, of each row divided by its root mean square."""
    for r in range(len(x)):
        inverse = _inverse_rms(x[r], epsilon)
        scale[r] = _quantise_row(x[r], codes[r]) * inverse / F32(127.0)


@njit(fastmath=SUMS, **OPTIONS)
def quantise_swiglu(gate_up: Any, codes: Any, scale: Any) -> None:
    """As `quantise`, of SiLU(gate) · up; `gate_up` [R, 2 K] is overwritten."""
    width = gate_up.shape[1] // 2
    for r in range(len(gate_up)):
        gate, up = gate_up[r, :width], gate_up[r, width:]
        for c in range(width):
            gate[c] = gate[c] / (F32(1.0) + exp(-gate[c])) * up[c]
        scale[r] = _quantise_row(gate, codes[r]) / F32(127.0)
