"""The KV cache of one forecast: keys and values of the positions that the model has seen.

Shapes: B rows of the batch (one a sample path, or one for a prompt that all paths share), C
channels, H heads, D = C / H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kronos_api.engine.kv_memory import KVMemory

KeysValues = tuple[Tensor, Tensor]
CPU: Final = torch.device("cpu")


@dataclass(slots=True, eq=False)
class KVCache:
    """Preallocated keys and values of B rows in every layer.

    own: [layers, B, 2, capacity, C], of which `length` positions are filled.
    heads: attention heads of each layer.
    arrays: each layer of `own` as NumPy sees it, float16 as its bits (uint16); empty for other
        types and devices.
    prefix: [layers, 1, 2, positions, C], a prompt that all rows share, or None. Never float16.
    """

    own: Tensor
    heads: Sequence[int]
    memory: KVMemory
    prefix: Tensor | None = None
    length: int = 0
    arrays: Sequence[NDArray[np.float32 | np.uint16]] = field(init=False)
    _layers: Sequence[Tensor] = field(init=False)
    _own_views: list[KeysValues] = field(init=False)
    _prefix_views: list[KeysValues] = field(init=False)

    def __post_init__(self) -> None:
        # A view costs microseconds, and a decode step would make several of them in every layer.
        self._layers = self.own.unbind(0)
        self.arrays = _arrays(self._layers) if self.own.device.type == "cpu" else ()
        self._own_views = _by_head(self._layers, self.heads)
        prefix = () if self.prefix is None else self.prefix.unbind(0)
        self._prefix_views = _by_head(prefix, self.heads[: len(prefix)])

    @classmethod
    def allocate(
        cls,
        heads: Sequence[int],
        batch_size: int,
        capacity: int,
        width: int,
        memory: KVMemory,
        *,
        device: torch.device = CPU,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Reserve `capacity` positions of `width` channels for each of `batch_size` rows."""
        shape = (len(heads), batch_size, 2, capacity, width)
        return cls(memory.empty(shape, dtype, device), heads, memory)

    @property
    def batch_size(self) -> int:
        """Rows: sample paths, or 1 for a prompt that they share."""
        return self.own.shape[1]

    @property
    def position(self) -> int:
        """Position of the next token: cached ones, the shared prompt included."""
        return self.length + (0 if self.prefix is None else self.prefix.shape[3])

    def head_width(self, layer: int) -> int:
        """Channels of one head of a layer."""
        return self.own.shape[4] // self.heads[layer]

    def check_capacity(self, q_len: int) -> None:
        """Check that `q_len` more positions fit.

        Raises:
            RuntimeError: the capacity is exceeded.
        """
        if self.length + q_len > self.own.shape[3]:
            raise RuntimeError(
                f"The KV cache holds {self.length} of {self.own.shape[3]} positions; {q_len} more"
                " do not fit."
            )

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [B, q_len, C] of one layer after the filled positions.

        The caller advances `length` once every layer is written.

        Raises:
            RuntimeError: the capacity is exceeded.
        """
        q_len = keys.shape[1]
        self.check_capacity(q_len)
        new = self._layers[layer].narrow(2, self.length, q_len)
        new[:, 0].copy_(keys)
        new[:, 1].copy_(values)

    def read(self, layer: int, q_len: int) -> KeysValues:
        """Keys and values of one layer, [B, H, length + q_len, D] each.

        The last `q_len` positions are those just stored, before `length` is advanced.
        """
        keys, values = self._own_views[layer]
        positions = self.length + q_len
        return keys.narrow(2, 0, positions), values.narrow(2, 0, positions)

    def read_prefix(self, layer: int) -> KeysValues:
        """Keys and values of the shared prompt in one layer, [1, H, positions, D] each."""
        return self._prefix_views[layer]

    def path_cache(self, index: int) -> KVCache:
        """A view of one row, through which the prompt of one path is prefilled."""
        return KVCache(self.own[:, index : index + 1], self.heads, self.memory)

    def fork(self, batch_size: int, capacity: int) -> KVCache:
        """Share the filled positions (of one row) among `batch_size` rows of `capacity` each."""
        layers, _, two, _, width = self.own.shape
        empty, dtype, device = self.memory.empty, self.own.dtype, self.own.device
        own = empty((layers, batch_size, two, capacity, width), dtype, device)
        prefix = self.own[:, :, :, : self.length]
        if dtype == torch.float16:  # converted once, not by each of the paths
            prefix = empty(prefix.shape, torch.float32, device).copy_(prefix)
        return KVCache(own, self.heads, self.memory, prefix=prefix)


def cache_bytes(layers: int, positions: int, width: int, dtype: torch.dtype) -> int:
    """Bytes that `KVCache.allocate` reserves for `positions`, counted over all rows."""
    return layers * 2 * positions * width * dtype.itemsize


def _arrays(layers: Sequence[Tensor]) -> Sequence[NDArray[np.float32 | np.uint16]]:
    match layers[0].dtype:
        case torch.float32:
            return [layer.numpy() for layer in layers]
        case torch.float16:
            return [layer.numpy().view(np.uint16) for layer in layers]
        case _:
            return ()


def _by_head(layers: Sequence[Tensor], heads: Sequence[int]) -> list[KeysValues]:
    """Keys and values of each layer as attention reads them: [B, H, positions, D] each."""
    views = []
    for layer, count in zip(layers, heads, strict=True):
        keys, values = layer.unflatten(3, (count, -1)).transpose(2, 3).unbind(1)
        views.append((keys, values))
    return views
