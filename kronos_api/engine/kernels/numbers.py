"""Numbers inside compiled loops: conversions, a vectorised exponential, maxima as integers.

Numba's cache of a loop notices changes of the loop's file alone, so `NUMBERS` in loops.py is the
digest of this file.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

F32: Final = np.float32
LOWEST: Final = np.int32(-(2**31))
# Without `reassoc`, sums are not vectorised. NaN is not assumed away (no `nnan`).
SUMS: Final = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}


def _same(x: Any) -> Any:
    return x


with suppress(RuntimeError):  # no folder for the machine code is writable: compile at each start
    njit(cache=True)(_same)
    OPTIONS["cache"] = True


@intrinsic
def larger(_context: Any, _left: Any, _right: Any) -> Any:
    """The larger number as one instruction, where `max` branches on NaN."""

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        single = ir.FloatType()
        kind = ir.FunctionType(single, [single, single])
        maxnum = builder.module.declare_intrinsic("llvm.maxnum", [single], kind)
        return builder.call(maxnum, operands)

    return types.float32(types.float32, types.float32), emit


@intrinsic
def nearest(_context: Any, _number: Any) -> Any:
    """The nearest whole number, as a float."""

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        rint = builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()])
        return builder.call(rint, operands)

    return types.float32(types.float32), emit


@intrinsic
def from_bits(_context: Any, _bits: Any) -> Any:
    """The float32 with these bits."""

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        return builder.bitcast(operands[0], ir.FloatType())

    return types.float32(types.int32), emit


@intrinsic
def bits_of(_context: Any, _number: Any) -> Any:
    """The bits of a float32."""

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        return builder.bitcast(operands[0], ir.IntType(32))

    return types.int32(types.float32), emit


@intrinsic
def load(_context: Any, number: Any) -> Any:
    """A number of a cache as float32; caches of float16 are arrays of its bits, uint16."""
    half = number == types.uint16

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        if not half:
            return operands[0]
        return builder.fpext(builder.bitcast(operands[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16 if half else types.float32), emit


@intrinsic
def stored(_context: Any, _number: Any, like: Any) -> Any:
    """A float32 as the cache `like` stores it: rounded to the bits of a float16, or as it is."""
    half = like.dtype == types.uint16

    def emit(_emitter: Any, builder: Any, _signature: Any, operands: Any) -> Any:
        if not half:
            return operands[0]
        return builder.bitcast(builder.fptrunc(operands[0], ir.HalfType()), ir.IntType(16))

    return like.dtype(types.float32, like), emit


@njit(fastmath={"contract"}, **OPTIONS)
def exp(x: Any) -> Any:
    """E to the power of x, which is clamped to ±87: 2^n times a polynomial on ±ln(2) / 2.

    The C library's is a call for each number; this one is vectorised. Relative error below 2e-7.
    """
    x = -larger(-larger(x, F32(-87.0)), F32(-87.0))
    n = nearest(x * F32(1.44269504))
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
    return p * from_bits((np.int32(n) + np.int32(127)) << np.int32(23))


@njit(**OPTIONS)
def ordered(x: Any) -> Any:
    """An integer for each float32, in their order: the maximum of integers is vectorised.

    Applied to such an integer's bits as a float, it gives back the bits of the number.
    """
    bits: Any = bits_of(x)
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
