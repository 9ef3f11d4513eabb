"""Loops over single rows, compiled by Numba. Imported only where Numba is installed.

Each row is computed by itself and in the same order whatever the number of rows, which makes all
loops batch-invariant. They release the GIL and run on one thread.

Shapes: R rows, C channels, H heads, D = C / H, B rows of a cache, K and N widths of linear layers.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

F32: Final = np.float32
# Without `reassoc`, sums are not vectorised. NaN is not assumed away (no `nnan`).
_SUMS: Final = {"reassoc", "contract", "nsz", "arcp"}
_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}


def _same(x: Any) -> Any:
    return x


with suppress(RuntimeError):  # no folder for the machine code is writable: compile at each start
    njit(cache=True)(_same)
    _OPTIONS["cache"] = True


@intrinsic
def _larger(_context: Any, _left: Any, _right: Any) -> Any:
    """The larger number as one instruction, where `max` branches on NaN."""

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        single = ir.FloatType()
        kind = ir.FunctionType(single, [single, single])
        maxnum = builder.module.declare_intrinsic("llvm.maxnum", [single], kind)
        return builder.call(maxnum, operands)

    return types.float32(types.float32, types.float32), emit


@intrinsic
def _nearest(_context: Any, _number: Any) -> Any:
    """The nearest whole number, as a float."""

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        rint = builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()])
        return builder.call(rint, operands)

    return types.float32(types.float32), emit


@intrinsic
def _from_bits(_context: Any, _bits: Any) -> Any:
    """The float32 with these bits."""

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        return builder.bitcast(operands[0], ir.FloatType())

    return types.float32(types.int32), emit


@intrinsic
def _load(_context: Any, number: Any) -> Any:
    """A number of a cache as float32; caches of float16 are arrays of its bits, uint16."""
    half = number == types.uint16

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        if not half:
            return operands[0]
        return builder.fpext(builder.bitcast(operands[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16 if half else types.float32), emit


@intrinsic
def _stored(_context: Any, _number: Any, like: Any) -> Any:
    """A float32 as the cache `like` stores it: rounded to the bits of a float16, or as it is."""
    half = like.dtype == types.uint16

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        if not half:
            return operands[0]
        return builder.bitcast(builder.fptrunc(operands[0], ir.HalfType()), ir.IntType(16))

    return like.dtype(types.float32, like), emit


@njit(fastmath={"contract"}, **_OPTIONS)
def _exp(x: Any) -> Any:
    """E to the power of x, which is clamped to ±87: 2^n times a polynomial on ±ln(2) / 2.

    The C library's is a call for each number; this one is vectorised. Relative error below 2e-7.
    """
    x = -_larger(-_larger(x, F32(-87.0)), F32(-87.0))
    n = _nearest(x * F32(1.44269504))
    # ln(2) in two parts, of which the first times n is exact.
    r = x - n * F32(0.693359375)
    r = r + n * F32(2.12194440e-4)
    # The Taylor polynomial to r^7 / 7!.
    p = F32(1 / 5040) * r + F32(1 / 720)
    p = p * r + F32(1 / 120)
    p = p * r + F32(1 / 24)
    p = p * r + F32(1 / 6)
    p = p * r + F32(1 / 2)
    p = p * r + F32(1)
    p = p * r + F32(1)
    return p * _from_bits((np.int32(n) + np.int32(127)) << np.int32(23))


@njit(fastmath=_SUMS, **_OPTIONS)
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
                    score += query[b, h, d] * _load(row[h * width + d])
                weights[h, p] = score * scale
        for h in range(heads):
            largest = F32(-np.inf)
            for p in range(length):
                largest = _larger(largest, weights[h, p])
            # NaN or infinity times zero is NaN: a score that is not finite fails the row.
            total = F32(0)
            for p in range(length):
                weight = _exp(weights[h, p] - largest) + weights[h, p] * F32(0)
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
                    mixed[h * width + d] += weight * _load(row[h * width + d])


@njit(fastmath=_SUMS, **_OPTIONS)
def causal_softmax(scores: Any, before: Any, scale: Any) -> None:
    """Turn scores [H, q_len, positions] to weights; query i sees `before` + i + 1 positions."""
    heads, count, positions = scores.shape
    for h in range(heads):
        for i in range(count):
            row, seen = scores[h, i], before + i + 1
            largest = F32(-np.inf)
            for p in range(seen):
                largest = _larger(largest, row[p])
            total = F32(0)
            for p in range(seen):
                weight = _exp((row[p] - largest) * scale) + row[p] * F32(0)
                row[p] = weight
                total += weight
            for p in range(seen):
                row[p] /= total
            for p in range(seen, positions):
                row[p] = F32(0)


@njit(fastmath={"contract"}, **_OPTIONS)
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
                target[c] = _stored(source[c], target)


@njit(fastmath={"contract"}, **_OPTIONS)
def _rotate(source: Any, factors: Any, target: Any) -> None:
    pairs = len(factors)
    for h in range(len(source) // (2 * pairs)):
        for i in range(pairs):
            at = 2 * (h * pairs + i)
            cosine, sine = factors[i, 0], factors[i, 1]
            x, y = source[at], source[at + 1]
            target[at] = _stored(x * cosine - y * sine, target)
            target[at + 1] = _stored(x * sine + y * cosine, target)


@njit(fastmath=_SUMS, **_OPTIONS)
def _quantise_row(x: Any, codes: Any) -> Any:
    """Write the codes of one row; returns its largest absolute value, or NaN if one is NaN."""
    largest, nan = F32(1e-30), F32(0)
    for c in range(len(x)):
        largest = _larger(largest, abs(x[c]))
        nan += x[c] * F32(0)
    inverse = F32(127.0) / largest
    for c in range(len(x)):
        codes[c] = np.uint8(np.int32(x[c] * inverse + F32(128.5)))
    return largest + nan


@njit(fastmath=_SUMS, **_OPTIONS)
def quantise(x: Any, codes: Any, scale: Any) -> None:
    """Quantise each row of `x` [R, K] to `codes` uint8 [R, K] and `scale` [R]."""
    for r in range(len(x)):
        scale[r] = _quantise_row(x[r], codes[r]) / F32(127.0)


@njit(fastmath=_SUMS, **_OPTIONS)
def quantise_normed(x: Any, epsilon: Any, codes: Any, scale: Any) -> None:
    """As `quantise`, of each row divided by its root mean square."""
    width = x.shape[1]
    for r in range(len(x)):
        total = F32(0)
        for c in range(width):
            total += x[r, c] * x[r, c]
        root = F32(1.0) / np.sqrt(total / F32(width) + epsilon)
        scale[r] = _quantise_row(x[r], codes[r]) * root / F32(127.0)


@njit(fastmath=_SUMS, **_OPTIONS)
def quantise_swiglu(gate_up: Any, codes: Any, scale: Any) -> None:
    """As `quantise`, of SiLU(gate) · up; `gate_up` [R, 2 K] is overwritten."""
    width = gate_up.shape[1] // 2
    for r in range(len(gate_up)):
        gate, up = gate_up[r, :width], gate_up[r, width:]
        for c in range(width):
            gate[c] = gate[c] / (F32(1.0) + _exp(-gate[c])) * up[c]
        scale[r] = _quantise_row(gate, codes[r]) / F32(127.0)
