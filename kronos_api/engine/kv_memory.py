"""Lends memory to KV caches: that of forecasts which have ended serves those which start.

Fresh memory costs a page fault for each 4 KiB, several milliseconds for the caches of one forecast,
and the C library's own lists of freed blocks come and go with the sizes of what else is freed.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALLEST: Final = 128 * 1024
"""Bytes below which the C library reuses memory without page faults."""

Block = NDArray[np.uint8]


class KVMemory:
    """Lends memory for tensors and takes it back when the last view of a tensor ends.

    What is lent and what is kept for later are together never more than was lent at once since the
    last `clear`. A GPU's memory is kept by PyTorch itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[Block] = []  # the oldest first
        self._ended: deque[Block] = deque()  # a finalizer may run anywhere, also within the lock
        self._lent = 0
        self._most = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes kept for later tensors."""
        with self._lock:
            self._take_back()
            return sum(block.nbytes for block in self._kept)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """As `torch.empty`."""
        size = math.prod(shape) * dtype.itemsize
        if device.type != "cpu" or size < SMALLEST:
            return torch.empty(shape, dtype=dtype, device=device)
        with self._lock:
            block = self._lend(size)
        # The tensor's storage holds this array for as long as any view of the tensor exists.
        held = block[:size]
        weakref.finalize(held, self._ended.append, block).atexit = False
        return torch.from_numpy(held).view(dtype).view(tuple(shape))

    def clear(self) -> None:
        """Free what is kept."""
        with self._lock:
            self._take_back()
            self._kept.clear()
            self._most = self._lent

    def _lend(self, size: int) -> Block:
        """The smallest kept block that fits, or a new one."""
        self._take_back()
        fitting = [i for i, b in enumerate(self._kept) if size <= b.nbytes <= size * 5 // 4]
        if fitting:
            block = self._kept.pop(min(fitting, key=lambda i: self._kept[i].nbytes))
        else:
            self._free_down_to(max(self._most, self._lent + size) - size)
            block = torch.empty(size, dtype=torch.uint8).numpy()  # aligned, unlike NumPy's
        self._lent += block.nbytes
        self._most = max(self._most, self._lent)
        return block

    def _free_down_to(self, size: int) -> None:
        while self._kept and self._lent + sum(b.nbytes for b in self._kept) > size:
            self._kept.pop(0)

    def _take_back(self) -> None:
        while self._ended:
            block = self._ended.popleft()
            self._lent -= block.nbytes
            self._kept.append(block)
