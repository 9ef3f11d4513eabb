"""The KV cache of one forecast: keys and values of the positions that the model has seen.

Shapes: B rows of the batch (one a sample path, or one for a prompt that all paths share), C
channels, H heads, D = C / H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]


@dataclass(slots=True, eq=False)
class KVCache:
    """Preallocated keys and values of B rows in every layer.

    own: [layers, B, capacity, 2, C], of which `length` positions are filled.
    heads: attention heads of each layer.
    prefix: [layers, 1, positions, 2, C], a prompt that all rows share, or None.
    """

    own: Tensor
    heads: Sequence[int]
    prefix: Tensor | None = None
    length: int = 0
    _layers: Sequence[Tensor] = field(init=False)
    _own_views: list[KeysValues] = field(init=False)
    _prefix_views: list[KeysValues] = field(init=False)

    def __post_init__(self) -> None:
        # A view costs microseconds, and a decode step would make several of them in every layer.
        self._layers = self.own.unbind(0)
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
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Reserve `capacity` positions of `width` channels for each of `batch_size` rows."""
        shape = (len(heads), batch_size, capacity, 2, width)
        return cls(torch.empty(shape, device=device, dtype=dtype), heads)

    @property
    def batch_size(self) -> int:
        """Rows: sample paths, or 1 for a prompt that they share."""
        return self.own.shape[1]

    @property
    def position(self) -> int:
        """Position of the next token: cached ones, the shared prompt included."""
        return self.length + (0 if self.prefix is None else self.prefix.shape[2])

    def store(self, layer: int, keys_values: Tensor) -> None:
        """Write `keys_values` [B, q_len, 2, C] of one layer after the filled positions.

        The caller advances `length` once every layer is written.

        Raises:
            RuntimeError: the capacity is exceeded.
        """
        self._layers[layer].narrow(1, self.length, keys_values.shape[1]).copy_(keys_values)

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
        return KVCache(self.own[:, index : index + 1], self.heads)

    def fork(self, batch_size: int, capacity: int) -> KVCache:
        """Share the filled positions (of one row) among `batch_size` rows of `capacity` each."""
        layers, _, _, two, width = self.own.shape
        own = self.own.new_empty((layers, batch_size, capacity, two, width))
        return KVCache(own, self.heads, prefix=self.own[:, :, : self.length])


def cache_bytes(layers: int, positions: int, width: int, dtype: torch.dtype) -> int:
    """Bytes that `KVCache.allocate` reserves for `positions`, counted over all rows."""
    return layers * 2 * positions * width * dtype.itemsize


def _by_head(layers: Sequence[Tensor], heads: Sequence[int]) -> list[KeysValues]:
    """Keys and values of each layer as attention reads them: [B, H, positions, D] each."""
    views = []
    for layer, count in zip(layers, heads, strict=True):
        keys, values = layer.unflatten(3, (count, -1)).transpose(1, 3).unbind(2)
        views.append((keys, values))
    return views
